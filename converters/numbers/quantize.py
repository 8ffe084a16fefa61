"""Float weights to integers with float16 scales, a group of input channels at a time.

int8 is symmetric. int4 has a scale and a minimum and searches: it tries a few ranges, fits scale
and minimum by least squares to the rounding each gives, and keeps the best. Knows rows and groups,
nothing of layouts, files or the models the weights come from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sparity_edge.errors import SourceError
from sparity_edge.packed.layout import IQ4_VALUES, K_QUANT_GROUPS, SUPERBLOCK, ZEROS

Array = npt.NDArray[Any]

INT4_LEVELS = 15
IQ4 = np.array(IQ4_VALUES, dtype=np.int8)
SIX_GROUP = K_QUANT_GROUPS["int6k"]
# Numbers 0..15 with a zero point each group, w = scale * (q - zero), as AWQ and GPTQ have them. No
# layout has this form: scale * zero needs more bits than a float16 minimum has.
ZERO_POINTS = "int4z"
# Steps into which an int4 range is cut before the fit; more than 15 clips the tails. Measured on
# normal noise and on weights of SmolLM2 and Qwen 1.5B: 6 to 8 % less squared error than 15 alone,
# and within 2 % of what a list of thirty finds.
RANGE_STEPS = (14.5, 15.0, 15.5, 16.0, 16.5, 17.0, 18.0)


@dataclass(frozen=True)
class Quantized:
    """Numbers and scales of some rows of W, before any layout.

    Input channel i belongs to group i // group; the last group may be short.
    """

    dtype: str  # as of a `Layout`, or ZERO_POINTS; "int8" or "int4" of floats quantised here
    group: int  # 32, 64 or 128; 16 for int2k, int3k and int6k
    # (rows, inputs) uint8; int8 for int8, int3k and int6k. Those of iq4 and iq4k are places.
    numbers: Array
    # (rows, groups) float16; of K-quants uint8 with minima, int8 without
    scales: Array
    # As the scales; without: w = scale * (q - ZEROS). Those of K-quants are taken off. Of
    # ZERO_POINTS the zero points, uint8.
    minimums: Array | None = None
    # Of K-quants: (rows, superblocks, 1 or 2) float16, what the scale and the minimum of every
    # group are multiples of.
    factors: Array | None = None

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The weights these numbers stand for, float32 (rows, inputs)."""
        inputs = self.numbers.shape[1]
        scales, minimums = self._float_scales()
        values = self._values().astype(np.float32)
        if self.dtype == ZERO_POINTS and minimums is not None:
            values -= _spread(minimums, self.group, inputs)
            minimums = None
        if minimums is None:
            values -= ZEROS.get(self.dtype, 0)
        values *= _spread(scales, self.group, inputs)
        if minimums is not None:
            values += _spread(minimums, self.group, inputs)
        return values

    def _values(self) -> Array:
        """What is multiplied with scales, but for what ZEROS takes off."""
        return IQ4[self.numbers] if self.dtype in ("iq4", "iq4k") else self.numbers

    def taken(self, rows: Array) -> Quantized:
        """The rows of these numbers, in this order."""
        minimums, factors = (
            None if each is None else each[rows] for each in (self.minimums, self.factors)
        )
        return replace(
            self,
            numbers=self.numbers[rows],
            scales=self.scales[rows],
            minimums=minimums,
            factors=factors,
        )

    def held_as(self, wanted: tuple[str, int, bool]) -> Quantized:
        """The same numbers in another (dtype, group, minimum), if it holds them; else themselves.

        Only scales and minima are rounded, where they are float16 afterwards and were not before:
        to inf where that is too small.
        """
        if self.dtype == ZERO_POINTS:
            return self._without_zero_points(wanted)
        if self.dtype == "int4k" and wanted == ("int4", 32, True):
            return Quantized("int4", self.group, self.numbers, *self._rounded_scales())
        if self.dtype == "int3k" and wanted == ("int6k", 16, False):
            return replace(self, dtype="int6k")
        of_bytes = self.dtype in ("int5", "iq4", "iq4k") and self.minimums is None
        if of_bytes and wanted == ("int8", 32, False):
            numbers = self._values().view(np.int8) - np.int8(ZEROS.get(self.dtype, 0))
            return Quantized("int8", self.group, numbers, *self._rounded_scales())
        return self

    def _without_zero_points(self, wanted: tuple[str, int, bool]) -> Quantized:
        """Numbers less their zero points, which is exact, or minima, which are rounded."""
        dtype, group, minimum = wanted
        assert self.minimums is not None
        if (dtype, group, minimum) == ("int4", self.group, True):
            with np.errstate(over="ignore"):
                least = (-self.scales.astype(np.float32) * self.minimums).astype(np.float16)
            return Quantized(dtype, group, self.numbers, self.scales, least)
        if dtype not in ("int5", "int8") or minimum or self.group % group:
            return self
        inputs = self.numbers.shape[1]
        zeros = np.uint8(ZEROS.get(dtype, 0)) - self.minimums  # modulo 256, as is the sum
        numbers = self.numbers + np.repeat(zeros, self.group, axis=1)[:, :inputs]
        scales = np.repeat(self.scales, self.group // group, axis=1)[:, : -(-inputs // group)]
        return Quantized(
            dtype, group, numbers.view(np.int8) if dtype == "int8" else numbers, scales
        )

    def _rounded_scales(self) -> list[Array]:
        """Scales, and minima if there are any, as float16."""
        with np.errstate(over="ignore"):
            return [each.astype(np.float16) for each in self._float_scales() if each is not None]

    def _float_scales(self) -> tuple[Array, Array | None]:
        """Scales and minima as they are multiplied and added; those of K-quants as float32."""
        if self.factors is None:
            return self.scales, self.minimums
        each = self.scales.shape[1] // self.factors.shape[1]
        factors = np.repeat(self.factors.astype(np.float32), each, axis=1)
        scales = factors[..., 0] * self.scales
        return scales, None if self.minimums is None else factors[..., 1] * -self.minimums.astype(
            np.float32
        )


def quantize(weights: Array, dtype: str, group: int, name: str = "the matrix") -> Quantized:
    """Quantise rows of a matrix.

    Args:
        weights: (rows, inputs) of any float type.
        dtype: "int8" or "int4".
        group: input channels that share a scale.
        name: what errors call the matrix.

    Raises:
        SourceError: a weight is not finite, or too large for a float16 scale.
    """
    whole = weights.shape[1] // group * group
    parts = [(weights[:, :whole], group), (weights[:, whole:], weights.shape[1] - whole)]
    with np.errstate(over="ignore", invalid="ignore"):
        blocks = [_quantize_groups(part, dtype, size, name) for part, size in parts if part.size]
    numbers, scales, minimums = (np.concatenate(kind, axis=1) for kind in zip(*blocks, strict=True))
    # A float16 scale that overflowed shows only now.
    if not (np.isfinite(scales).all() and np.isfinite(minimums).all()):
        raise SourceError(
            f"{name} holds weights too large for the float16 scales of {dtype}; "
            "convert with --dtype bf16."
        )
    return Quantized(dtype, group, numbers, scales, minimums if dtype == "int4" else None)


def quantize_sixes(weights: Array, name: str = "the matrix") -> Quantized:
    """Quantise rows of a matrix to int6k, 6.5625 bits a weight: what plans bring along.

    The largest number of 16 inputs becomes -32, which has one step more than 31.

    Args:
        weights: (rows, inputs) of any float type, inputs a multiple of 256.
        name: what errors call the matrix.

    Raises:
        SourceError: a weight is not finite, or too large for a float16 factor.
    """
    rows = weights.astype(np.float32).reshape(len(weights), -1, SIX_GROUP)
    low, high = rows.min(axis=2), rows.max(axis=2)
    _refuse_not_finite(low, name)
    _refuse_not_finite(high, name)
    steps = np.where(-low > high, low, high) / np.float32(-32)
    of_superblocks = np.abs(steps).reshape(len(rows), -1, SUPERBLOCK // SIX_GROUP).max(axis=2)
    with np.errstate(over="ignore"):
        factors = (of_superblocks / np.float32(127)).astype(np.float16)
    if not np.isfinite(factors).all():
        raise SourceError(f"{name} holds weights too large for the float16 factors of int6k.")
    spread = np.repeat(factors.astype(np.float32), SUPERBLOCK // SIX_GROUP, axis=1)
    scales = np.clip(np.rint(steps * _inverse(spread)), -127, 127)
    numbers = np.rint(rows * _inverse(scales * spread)[..., None])
    np.clip(numbers, -32, 31, out=numbers)
    integers = numbers.astype(np.int8).reshape(weights.shape)
    return Quantized("int6k", SIX_GROUP, integers, scales.astype(np.int8), None, factors[..., None])


def _quantize_groups(
    weights: Array, dtype: str, group: int, name: str
) -> tuple[Array, Array, Array]:
    """Numbers (rows, inputs), scales and minima (rows, inputs // group) of whole groups."""
    rows, inputs = weights.shape
    # Group members along the first axis: NumPy reduces over 32 neighbours slowly, and adds 32 long
    # vectors fast.
    columns = weights.astype(np.float32).reshape(-1, group).T
    columns = np.ascontiguousarray(columns)  # (group, rows * groups)
    numbers, scales, minimums = (_int8 if dtype == "int8" else _int4)(columns, name)
    numbers = np.ascontiguousarray(numbers.T)
    return numbers.reshape(rows, inputs), scales.reshape(rows, -1), minimums.reshape(rows, -1)


def _int8(columns: Array, name: str) -> tuple[Array, Array, Array]:
    """Numbers (group, n) and scales (n,) of largest / 127; the minima are 0."""
    largest = np.maximum(columns.max(axis=0), -columns.min(axis=0))
    _refuse_not_finite(largest, name)
    scales = (largest / np.float32(127)).astype(np.float16)
    # Only below float16's normal range is rounding down so coarse that 127 would clip.
    short = scales.astype(np.float32) * np.float32(127.5) < largest
    scales[short] = np.nextafter(scales[short], np.float16(np.inf))
    numbers = np.rint(columns * _inverse(scales.astype(np.float32)))
    np.clip(numbers, -127, 127, out=numbers)
    return numbers.astype(np.int8), scales, np.zeros_like(scales)


def _int4(columns: Array, name: str) -> tuple[Array, Array, Array]:
    """Numbers (group, n), scales (n,) and minima (n,) with the least squared error found."""
    low, high = columns.min(axis=0), columns.max(axis=0)
    _refuse_not_finite(low, name)
    _refuse_not_finite(high, name)
    mean = columns.mean(axis=0)
    centred = columns - mean  # keeps the sums of squares free of cancellation
    best_scale = (high - low) / np.float32(INT4_LEVELS)
    best_minimum = low
    gain = np.full(low.shape, -np.inf, dtype=np.float32)
    for steps in RANGE_STEPS:
        scale, minimum, candidate = _fit(centred, low - mean, high - mean, np.float32(steps))
        better = candidate > gain
        gain = np.where(better, candidate, gain)
        best_scale = np.where(better, scale, best_scale)
        best_minimum = np.where(better, minimum + mean, best_minimum)
    scales, minimums = best_scale.astype(np.float16), best_minimum.astype(np.float16)
    return _round(columns, scales, minimums), scales, minimums


def _fit(centred: Array, low: Array, high: Array, steps: np.float32) -> tuple[Array, Array, Array]:
    """Least-squares scale and minimum for numbers rounded on `steps` steps of the range.

    Returns scale and minimum (n,), and by how much they lower the sum of squares from that of the
    all-zero fit: with centred weights that is covariance^2 / variance, the rule of a fitted line.
    """
    size = np.float32(len(centred))
    # The outermost levels move in from both ends alike.
    step = (high - low) / steps
    start = (low + high - step * INT4_LEVELS) / 2
    numbers = np.rint((centred - start) * _inverse(step))
    np.clip(numbers, 0, INT4_LEVELS, out=numbers)
    total = numbers.sum(axis=0)
    variance = np.einsum("gn,gn->n", numbers, numbers) - total * total / size
    covariance = np.einsum("gn,gn->n", numbers, centred)
    scale = covariance * _inverse(variance)
    return scale, -scale * total / size, scale * covariance


def _round(columns: Array, scales: Array, minimums: Array) -> Array:
    """Nearest numbers under the scales as they are stored, so that their rounding costs little."""
    numbers = columns - minimums.astype(np.float32)
    numbers *= _inverse(scales.astype(np.float32))
    np.rint(numbers, out=numbers)
    return np.clip(numbers, 0, INT4_LEVELS, out=numbers).astype(np.uint8)


def _inverse(values: Array) -> Array:
    """1 / values, and 0 where a value is 0."""
    return np.divide(1, values, out=np.zeros_like(values), where=values != 0)


def _refuse_not_finite(extremes: Array, name: str) -> None:
    if not np.isfinite(extremes).all():
        raise SourceError(
            f"{name} holds weights that are not finite numbers; "
            "the source is damaged, fetch it again."
        )


def _spread(values: Array, group: int, inputs: int) -> npt.NDArray[np.float32]:
    return np.repeat(values.astype(np.float32), group, axis=1)[:, :inputs]
