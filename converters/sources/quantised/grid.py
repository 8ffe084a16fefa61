"""Matrices on grids: integers times a scale, less a zero point or plus a minimum, by groups.

Says in which of our integer formats the very same values can be held, from all scales and zero
points of the matrix, and takes the rest for floats. What the formats of files have in common meets
here; how they store it is their own modules' part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.numbers.quantize import ZERO_POINTS, Quantized
from converters.sources.quantised.stored import as_float32
from sparity_edge.packed.layout import GROUPS, ZEROS

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

STEP = 1 << 20  # scales that are looked at at a time
LARGEST_ZERO = 256


class Matrix(ABC):
    """One quantised matrix of a checkpoint, (outputs, inputs)."""

    shape: tuple[int, int]
    native: tuple[str, int, bool] | None = None  # as of `Source.native`
    why_floats = ""  # why its values are read as floats, for a note

    @abstractmethod
    def read(self, start: int, stop: int) -> Quantized | Array:
        """Rows start:stop, as `Source.read` gives them.

        Returns:
            (rows, inputs), integers where `native` is not None, else float32.

        Raises:
            SourceError: the file ends before them.
        """


class Grid(Matrix):
    """w = scale * (q - zero) or scale * q + minimum; what is read from files is up to the class."""

    bits: int
    minimum = False  # whether there are minima in place of zero points
    of_groups: Array  # (inputs,) the group of each input

    def settle(self) -> None:
        """Find the format; to be called once the shapes are known."""
        group = _runs(self.of_groups)
        self.native = self._fitting(group) if group else None
        if group is None:
            self.why_floats = "groups of inputs that are no multiples of 32 in a row"
        elif self.native is None:
            self.why_floats = f"{self.bits}-bit numbers whose scales no format here holds"

    @abstractmethod
    def numbers(self, start: int, stop: int) -> Bytes:
        """Integers of rows start:stop, uint8 (rows, inputs)."""

    @abstractmethod
    def scales(self, start: int, stop: int) -> Array:
        """Scales of rows start:stop, (rows, groups), of any float type."""

    @abstractmethod
    def offsets(self, start: int, stop: int) -> Array:
        """Of rows start:stop (rows, groups): zero points, int16, or minima of any float type."""

    def read(self, start: int, stop: int) -> Quantized | Array:
        numbers, scales = self.numbers(start, stop), self.scales(start, stop)
        offsets = self.offsets(start, stop)
        if self.native is None:
            return self._floats(numbers, scales, offsets)
        dtype, group, _ = self.native
        firsts = self.of_groups[::group]
        halves, offsets = _halves(scales)[:, firsts], offsets[:, firsts]
        if self.minimum:
            return Quantized(dtype, group, numbers, halves, _halves(offsets))
        if dtype == ZERO_POINTS:
            return Quantized(dtype, group, numbers, halves, offsets.astype(np.uint8))
        # Modulo 256; where all zero points are the format's own there is nothing to move.
        moved = (ZEROS.get(dtype, 0) - offsets).astype(np.uint8)
        if moved.any():
            numbers = numbers + np.repeat(moved, group, axis=1)[:, : numbers.shape[1]]
        if dtype == "int8":
            numbers = numbers.view(np.int8)
        return Quantized(dtype, group, numbers, halves)

    def _floats(self, numbers: Bytes, scales: Array, offsets: Array) -> Array:
        values = numbers.astype(np.float32)
        if not self.minimum:
            values -= offsets[:, self.of_groups]
        with np.errstate(over="ignore", invalid="ignore"):
            values *= as_float32(scales)[:, self.of_groups]
            if self.minimum:
                values += as_float32(offsets)[:, self.of_groups]
        return values

    def _fitting(self, group: int) -> tuple[str, int, bool] | None:
        """The format that holds every value of the matrix, if there is one."""
        least, most = LARGEST_ZERO, 0
        for start, stop in self._steps():
            offsets = self.offsets(start, stop)
            if not self._held_by_halves(start, stop, offsets):
                return None
            if not self.minimum:
                least, most = min(least, int(offsets.min())), max(most, int(offsets.max()))
        if self.minimum:
            return _with_minima(self.bits, group)
        return _less_zeros((1 << self.bits) - 1, least, most, group)

    def _held_by_halves(self, start: int, stop: int, offsets: Array) -> bool:
        """Whether float16 holds scales and minima; not asked of scales of nothing but zeros."""
        if self.minimum and not _is_half(offsets).all():
            return False
        rounded = ~_is_half(self.scales(start, stop))
        for row in map(int, np.flatnonzero(rounded.any(axis=1))):
            numbers = self.numbers(start + row, start + row + 1)[0].astype(np.int16)
            alive = numbers != (0 if self.minimum else offsets[row, self.of_groups])
            if (alive & rounded[row, self.of_groups]).any():
                return False
        return True

    def _steps(self) -> Iterator[tuple[int, int]]:
        rows, inputs = self.shape
        step = max(1, STEP // max(1, inputs // 32))
        for start in range(0, rows, step):
            yield start, min(rows, start + step)


def _is_half(values: Array) -> npt.NDArray[np.bool_]:
    """Where float16 holds floats of any type."""
    if values.dtype == np.float16:
        return np.isfinite(values)
    floats = as_float32(values)
    with np.errstate(over="ignore", invalid="ignore"):
        same: Array = floats.astype(np.float16) == floats
    return same & np.isfinite(floats)


def _halves(values: Array) -> Array:
    """Floats of any type as float16; 0 where that has not the same, which nobody reads then."""
    if values.dtype == np.float16:
        return values
    floats = as_float32(values)
    with np.errstate(over="ignore", invalid="ignore"):
        halves = floats.astype(np.float16)
    halves[halves != floats] = 0
    return halves


def _runs(of_groups: Array) -> int | None:
    """The most inputs in a row, of those that our groups may have, that always share a scale.

    A group that the last one would not fill costs room, so it is not taken for longer than it must.
    """
    inputs = len(of_groups)
    for group in reversed(GROUPS):
        fills = inputs % group == 0 or group == GROUPS[0]
        if fills and np.array_equal(of_groups, of_groups[np.arange(inputs) // group * group]):
            return group
    return None


def _less_zeros(largest: int, least: int, most: int, group: int) -> tuple[str, int, bool] | None:
    """A format for scale * (q - zero), q from 0 to `largest`, zero from `least` to `most`."""
    fits = [zero for zero in (8, 16, 128) if most <= zero and largest - least < zero]
    if not fits:
        return None
    if fits[0] == 16 and largest == 15:
        return ZERO_POINTS, group, True
    if fits[0] == 8:
        return "int4", group, False
    return ("int5", 32, False) if fits[0] == 16 else ("int8", group, False)


def _with_minima(bits: int, group: int) -> tuple[str, int, bool] | None:
    """A format for scale * q + minimum, q of so many bits."""
    if bits <= 4:
        return "int4", group, True
    return ("int5", 32, True) if bits == 5 else None
