"""MLX, mode affine: 2 to 8 bits, scale and bias each group, w = scale * q + bias.

`weight` is (outputs, inputs * bits / 32), a row one stream of bits; `scales` and `biases` are
(outputs, groups). The bias may be either end of a group's range: scales have a sign. Modules may
have bits and group of their own in config.json. Source: mlx.core.quantize of mlx 0.32.4.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from converters.sources.quantised.bits import unpack_rows
from converters.sources.quantised.grid import Bytes, Grid
from converters.sources.quantised.parts import Parts, in_groups
from converters.sources.quantised.stored import FLOATS

Array = npt.NDArray[Any]

PARTS = ("weight", "scales", "biases")
BITS = (2, 3, 4, 5, 6, 8)
WORD = 32  # bits


class Mlx(Grid):
    """One linear, or the embedding, of MLX."""

    minimum = True

    def __init__(self, parts: Parts, bits: int, group: int) -> None:
        """Check the parts of a module.

        Args:
            parts: of the module.
            bits, group: what config.json says of the module.

        Raises:
            SourceError: they do not fit each other.
        """
        weight = parts.take("weight", ("U32",), 2)
        outputs, words = weight.shape
        if words * WORD % bits:
            raise parts.refused(
                f"weight of shape {weight.shape} is of no whole number of {bits} bits"
            )
        inputs = words * WORD // bits
        scales = parts.take("scales", FLOATS, 2)
        groups = scales.shape[1]
        parts.take("scales", FLOATS, (outputs, groups))
        self._biases = parts.take("biases", FLOATS, (outputs, groups))
        self.of_groups = in_groups(inputs, parts.check_group(inputs, groups, group))
        self.shape, self.bits = (outputs, inputs), bits
        self._weight, self._scales = weight, scales
        self.settle()

    def numbers(self, start: int, stop: int) -> Bytes:
        return unpack_rows(self._weight.read(start, stop), self.bits)

    def scales(self, start: int, stop: int) -> Array:
        return self._scales.read(start, stop)

    def offsets(self, start: int, stop: int) -> Array:
        return self._biases.read(start, stop)
