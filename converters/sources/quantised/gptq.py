"""GPTQ as AutoGPTQ and GPTQModel store it, versions 1 and 2: inputs packed in words, zero points.

`qweight` is (inputs * bits / 32, outputs), a column one stream of bits; `qzeros` (groups, outputs *
bits / 32), a row one stream; `scales` (groups, outputs); `g_idx` (inputs,) the group of each input,
which may be left out where groups follow each other. w = scale * (q - zero). Version 1 stores the
zero points less 1, taken off whole words with its borrow (of 3 bits: number by number), and need
not say so. Source: nn_modules/qlinear/torch.py and utils/model.py of GPTQModel 7.7.0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from converters.sources.quantised.bits import unpack_rows
from converters.sources.quantised.grid import Bytes, Grid
from converters.sources.quantised.parts import Parts, in_groups, transposed
from converters.sources.quantised.stored import FLOATS, Stored

Array = npt.NDArray[Any]

PARTS = ("qweight", "qzeros", "scales", "g_idx")
BITS = (2, 3, 4, 8)
WORD = 32  # bits
_ONES = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}  # one in each number of a word


class Gptq(Grid):
    """One linear of GPTQ."""

    def __init__(self, parts: Parts, group: int | None, first: bool) -> None:
        """Check the parts of a module.

        Args:
            parts: of the module.
            group: group_size of the configuration, None where it may be any.
            first: whether it is version 1, which stores zero points less 1.

        Raises:
            SourceError: they do not fit each other.
        """
        weight, scales = parts.take("qweight", ("I32",), 2), parts.take("scales", FLOATS, 2)
        groups, outputs = scales.shape
        zeros = parts.take("qzeros", ("I32",), 2)
        self.bits = next(
            (b for b in BITS if zeros.shape == (groups, -(-outputs * b // WORD)) and outputs), 0
        )
        if not self.bits:
            raise parts.refused(
                f"qzeros of shape {zeros.shape} beside scales of shape {scales.shape}"
            )
        inputs = weight.shape[0] * WORD // self.bits
        parts.take("qweight", ("I32",), (weight.shape[0], outputs))
        self.shape = outputs, inputs
        group = parts.check_group(inputs, groups, group)
        index = parts.optional("g_idx", ("I32", "I64"), (inputs,))
        self.of_groups = _checked(parts, index, groups) if index else in_groups(inputs, group)
        self._parts, self._weight, self._scales, self._zeros = parts, weight, scales, zeros
        self._first = first
        self.settle()

    def numbers(self, start: int, stop: int) -> Bytes:
        words = self._parts.kept("qweight", lambda: transposed(self._weight.read()))
        return unpack_rows(words[start:stop], self.bits)

    def scales(self, start: int, stop: int) -> Array:
        scales = self._parts.kept("scales", lambda: transposed(self._scales.read()))
        return scales[start:stop]

    def offsets(self, start: int, stop: int) -> Array:
        return self._parts.kept("qzeros", self._all_zeros)[start:stop]

    def _all_zeros(self) -> Array:
        words = self._zeros.read().view(np.uint32)
        if self._first and self.bits in _ONES:
            words += np.uint32(_ONES[self.bits])
        zeros = unpack_rows(words, self.bits)
        if self._first and self.bits not in _ONES:
            zeros = zeros + np.uint8(1) & np.uint8((1 << self.bits) - 1)
        return transposed(zeros[:, : self.shape[0]].astype(np.int16))


def _checked(parts: Parts, index: Stored, groups: int) -> Array:
    """The group of each input, every one below `groups`."""
    of_groups: Array = index.read().astype(np.int64)
    if of_groups.min() < 0 or of_groups.max() >= groups:
        raise parts.refused(f"g_idx names a group that is not one of {groups}")
    return of_groups
