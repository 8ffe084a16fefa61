"""AWQ as AutoAWQ's GEMM version stores it: four bits, eight outputs to a word, zero points.

`qweight` is (inputs, outputs / 8): nibble n of word j holds output 8 j + ORDER[n]; `qzeros`
(groups, outputs / 8) likewise, and the zero points are stored as they are; `scales` is (groups,
outputs). w = scale * (q - zero). Source: awq/utils/packing_utils.py of AutoAWQ 0.2.9.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from converters.sources.quantised.grid import Bytes, Grid
from converters.sources.quantised.parts import Parts, in_groups, transposed
from converters.sources.quantised.stored import FLOATS

Array = npt.NDArray[Any]

ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
WORD = 8  # outputs
PARTS = ("qweight", "qzeros", "scales")


class Awq(Grid):
    """One linear of AWQ."""

    bits = 4

    def __init__(self, parts: Parts, group: int | None) -> None:
        """Check the parts of a module.

        Args:
            parts: of the module.
            group: group_size of the configuration, None where it may be any.

        Raises:
            SourceError: they do not fit each other.
        """
        weight = parts.take("qweight", ("I32",), 2)
        inputs, outputs = weight.shape[0], weight.shape[1] * WORD
        self.shape = outputs, inputs
        scales = parts.take("scales", FLOATS, 2)
        groups = scales.shape[0]
        parts.take("scales", FLOATS, (groups, outputs))
        zeros = parts.take("qzeros", ("I32",), (groups, outputs // WORD))
        self.of_groups = in_groups(inputs, parts.check_group(inputs, groups, group))
        self._parts, self._weight, self._scales, self._zeros = parts, weight, scales, zeros
        self.settle()

    def numbers(self, start: int, stop: int) -> Bytes:
        words = self._parts.kept("qweight", lambda: transposed(self._weight.read()))
        return _rows(words, start, stop)

    def scales(self, start: int, stop: int) -> Array:
        scales = self._parts.kept("scales", lambda: transposed(self._scales.read()))
        return scales[start:stop]

    def offsets(self, start: int, stop: int) -> Array:
        words = self._parts.kept("qzeros", lambda: transposed(self._zeros.read()))
        return _rows(words, start, stop).astype(np.int16)


def _rows(words: Array, start: int, stop: int) -> Bytes:
    """Outputs start:stop, (stop - start, n), of words (outputs / 8, n)."""
    first = start // WORD
    picked = words[first : -(-stop // WORD)].view(np.uint32)
    numbers = np.empty((len(picked), WORD, picked.shape[1]), np.uint8)
    for nibble, output in enumerate(ORDER):
        np.bitwise_and((picked >> 4 * nibble).astype(np.uint8), 15, out=numbers[:, output])
    return numbers.reshape(-1, picked.shape[1])[start - first * WORD : stop - first * WORD]
