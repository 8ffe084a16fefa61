"""compressed-tensors: integers packed into words, or bytes, with scales by rows or groups.

`weight_packed` is (outputs, inputs * bits / 32), a row one stream of bits; q is stored with half
its range added, and so are zero points, packed along the outputs. `weight_scale` is (outputs,
groups), `weight_shape` the true shape. Unpacked, `weight` holds signed bytes. Symmetric scales are
the largest number / 7.5 and / 127.5, so that the lowest integer is in use. Source:
compressors/pack_quantized and naive_quantized of compressed-tensors 0.20.1.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.sources.quantised.bits import unpack_rows
from converters.sources.quantised.grid import Bytes, Grid, Matrix
from converters.sources.quantised.parts import Parts, in_groups
from converters.sources.quantised.scaled import IGNORED, Scaled
from converters.sources.quantised.stored import FLOATS, Stored

Array = npt.NDArray[Any]

PARTS = (
    "weight_packed", "weight", "weight_scale", "weight_shape", "weight_zero_point", "weight_g_idx",
    *IGNORED, "input_zero_point",
)  # fmt: skip
BITS = (2, 4, 8)  # others were packed otherwise by former versions
WORD = 32  # bits


def compressed(parts: Parts, groups: Collection[int], block: tuple[int, int] | None) -> Matrix:
    """The matrix of a module.

    Args:
        parts: of the module.
        groups: any group_size that config.json names.
        block: rows and columns of a block of float8, where config.json says them.

    Raises:
        SourceError: the parts do not fit each other.
    """
    weight = parts.stored.get("weight")
    if weight is not None and weight.dtype == "F8_E4M3":
        return Scaled(parts, "weight_scale", block)
    return Integers(parts, groups)


class Integers(Grid):
    """One linear of integers, packed or in bytes."""

    def __init__(self, parts: Parts, groups: Collection[int]) -> None:
        """Check the parts of a module; see `compressed`."""
        self._parts, self._packed = parts, "weight_packed" in parts.stored
        if self._packed:
            self._weight = parts.take("weight_packed", ("I32",), 2)
            self.shape = self._true_shape()
            width = self._weight.shape[1]
            fitting = [b for b in BITS if -(-self.shape[1] * b // WORD) == width]
            if not fitting or self._weight.shape[0] != self.shape[0]:
                raise parts.refused(
                    f"weight_packed has shape {self._weight.shape} beside weight_shape={self.shape}"
                )
            self.bits = fitting[0]
        else:
            self._weight = parts.take("weight", ("I8",), 2)
            self.shape, self.bits = (self._weight.shape[0], self._weight.shape[1]), 8
        outputs, inputs = self.shape
        self._scales = parts.take("weight_scale", FLOATS, 2)
        count = self._scales.shape[1]
        rows = 1 if self._scales.shape == (1, 1) else outputs  # one scale for all
        parts.take("weight_scale", FLOATS, (rows, count))
        self._zeros = self._zero_points(rows, count)
        fits = [group for group in groups if -(-inputs // group) == count]
        group = fits[0] if len(fits) == 1 and count > 1 else None
        self.of_groups = in_groups(inputs, parts.check_group(inputs, count, group))
        index = parts.optional("weight_g_idx", ("I32", "I64"), (inputs,))
        if index is not None and (order := index.read().astype(np.int64)).min() >= 0:
            if order.max() >= count:
                raise parts.refused(f"weight_g_idx names a group that is not one of {count}")
            self.of_groups = order
        self.settle()

    def _true_shape(self) -> tuple[int, int]:
        shape = self._parts.take("weight_shape", ("I64", "I32"), (2,)).read()
        return int(shape[0]), int(shape[1])

    def _zero_points(self, rows: int, count: int) -> Stored | None:
        if not self._packed:
            return self._parts.optional("weight_zero_point", ("I8",), (rows, count))
        words = -(-rows * self.bits // WORD)
        return self._parts.optional("weight_zero_point", ("I32",), (words, count))

    def numbers(self, start: int, stop: int) -> Bytes:
        stored = self._weight.read(start, stop)
        if self._packed:
            return np.ascontiguousarray(unpack_rows(stored, self.bits)[:, : self.shape[1]])
        return stored.view(np.uint8) ^ np.uint8(128)

    def scales(self, start: int, stop: int) -> Array:
        return self._of_rows(self._scales, start, stop)

    def offsets(self, start: int, stop: int) -> Array:
        half = 1 << (self.bits - 1)
        if self._zeros is None:
            return np.full((stop - start, self._scales.shape[1]), half, np.int16)
        if self._packed:
            return self._parts.kept("weight_zero_point", self._unpacked_zeros)[start:stop]
        return self._of_rows(self._zeros, start, stop).astype(np.int16) + np.int16(half)

    def _unpacked_zeros(self) -> Array:
        assert self._zeros is not None
        by_groups = np.ascontiguousarray(self._zeros.read().T)
        return np.ascontiguousarray(unpack_rows(by_groups, self.bits).T.astype(np.int16))

    def _of_rows(self, stored: Stored, start: int, stop: int) -> Array:
        if stored.shape[0] == self.shape[0]:
            return stored.read(start, stop)
        return np.repeat(stored.read(), stop - start, axis=0)
