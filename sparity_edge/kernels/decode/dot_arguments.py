"""Argument words of dot products with one token, and what all rows of a product share."""

from __future__ import annotations

from typing import Any, NamedTuple

from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import (
    DTYPE,
    GROUP,
    GROUPS,
    HEADER_BYTES,
    INT8,
    MINIMUM,
    PADDED,
    SCALES_AT,
    ZERO,
)
from sparity_edge.kernels.simd.conversions import load_f16
from sparity_edge.kernels.simd.memory import load_i64, prefetch_near, prefetch_non_temporal
from sparity_edge.kernels.simd.vectors import repeat2, repeat4
from sparity_edge.kernels.words import Words

# Of every kernel that multiplies rows of a matrix with one token: STEP outputs a chunk, each row
# prefetches memory AHEAD bytes on; of K-quants SCALES are all floats that go with DIGITS.
DOT = Words("matrix x bias out accumulate step ahead digits scales sums")
# Groups of 32 inputs in a block; bytes of a block of int8, of int4 and of its activations.
BLOCK_GROUPS, INT8_BLOCK, INT4_BLOCK, X_BLOCK = 16, 512, 256, 1024


class Product(NamedTuple):
    """What rows of a product share, read once: stores of results would hide it."""

    dtype: int
    matrix: int  # its words
    arguments: int  # those above
    group: int  # inputs that share a scale
    groups: int  # of 32 inputs
    scales_at: int  # where in a row scales stand
    minima_at: int  # bytes from there to the minima; 0 where there are none
    numbers_at: int  # where in a row numbers stand
    x: int  # the address of the digits of activations,
    x_scales: int  # of their scales,
    x_sums: int  # and bytes from there to their sums
    # What the sums are multiplied with in the end: weights are multiplied as unsigned integers, so
    # every group of inputs also contributes its sum times what the integer 0 stands for, which is
    # the minimum, or -8 (int4), -16 (int5) or -128 (int8) scales.
    zero: float


@device
def product_of(matrix: int, arguments: int) -> Product:
    """What the rows of a matrix descriptor share, read from it and from an argument block."""
    group, groups = load_i64(matrix + GROUP), load_i64(matrix + PADDED) // 32
    numbers_at, scales_at = load_i64(matrix + HEADER_BYTES), load_i64(matrix + SCALES_AT)
    minima, zero = 2 * load_i64(matrix + GROUPS), 1.0
    if load_i64(matrix + MINIMUM) == 0:
        of_signs = 128 if load_i64(matrix + DTYPE) == INT8 else 0
        minima, zero = 0, -float(load_i64(matrix + ZERO) + of_signs)
    x, x_scales = load_i64(arguments + DOT.digits), load_i64(arguments + DOT.scales)
    x_sums = load_i64(arguments + DOT.sums) - x_scales
    return Product(
        load_i64(matrix + DTYPE), matrix, arguments, group, groups, scales_at, minima, numbers_at,
        x, x_scales, x_sums, zero,
    )  # fmt: skip


@inlined
def spread(group: int, halves: int, index: int, left: int) -> Any:
    """A row's float16 scales (or minima) for groups index..index+15 of 32 inputs, one to a lane.

    Args:
        group: inputs that share a scale: 32, 64 or 128.
        halves: the address of the row's first scale.
        index: a multiple of 16.
        left: groups of 32 from `index` on that the row has; lanes beyond are zero.

    Returns:
        A vector of float32.
    """
    if group == 32:
        return load_f16(halves + 2 * index, left)
    if group == 64:
        return repeat2(load_f16(halves + index, left // 2))
    return repeat4(load_f16(halves + index // 2, left // 4))


@inlined
def prefetch_lines(non_temporal: bool, start: int, end: int) -> None:
    """Prefetch the cache lines from one address to another into L1."""
    for place in range(start, end, 64):
        if non_temporal:
            prefetch_non_temporal(place)
        else:
            prefetch_near(place)


@device
def whole_groups(matrix: int) -> int:
    """Groups of 32 inputs that stand in blocks of 512 in an output-major row of int8 or int4."""
    return load_i64(matrix + PADDED) // 512 * 16
