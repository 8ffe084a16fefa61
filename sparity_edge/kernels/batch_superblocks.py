"""Products of a row of superblocks (int4k, int6k) with two tokens: see `batch_dots`.

Both sums take the steps of `superblocks`, so that their bits are the same; what they share, the
numbers taken apart and their scales, the compiler computes once.
"""

from __future__ import annotations

from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import DTYPE, INT4K, PADDED
from sparity_edge.kernels.simd import load_i64, splat, total
from sparity_edge.kernels.simd import prefetch_near as ask
from sparity_edge.kernels.superblocks import (
    DIGITS,
    FLOATS,
    FOUR_SCALES,
    FOURS,
    SIX_SCALES,
    SIXES,
    X_DIGITS,
    X_FLOATS,
    add_half_int4k,
    add_half_int6k,
    add_int4k,
    add_int6k,
)


@device
def superblock_dot_of_two(
    matrix: int, row: int, mine: int, yours: int, wanted: int
) -> tuple[float, float]:
    """The products of one row with two tokens; asks for memory as `superblock_dot` does."""
    if load_i64(matrix + DTYPE) == INT4K:
        return _two_int4k(matrix, row, mine, yours, wanted)
    return _two_int6k(matrix, row, mine, yours, wanted)


@device
def _two_int4k(matrix: int, row: int, mine: int, yours: int, wanted: int) -> tuple[float, float]:
    size, a, b = load_i64(matrix + PADDED), splat(0.0), splat(0.0)
    x, about = load_i64(mine + DIGITS), load_i64(mine + FLOATS)
    y, other = load_i64(yours + DIGITS), load_i64(yours + FLOATS)
    scales = row + size // 2
    for _ in range(size // 512):
        for line in range(0, FOURS + FOUR_SCALES, 64):
            ask(wanted + line)
        a = add_int4k(row, scales, x, about, a)
        b = add_int4k(row, scales, y, other, b)
        row, scales, wanted = row + FOURS, scales + FOUR_SCALES, wanted + FOURS + FOUR_SCALES
        x, about, y, other = x + X_DIGITS, about + X_FLOATS, y + X_DIGITS, other + X_FLOATS
    if size % 512 != 0:
        for line in range(0, FOURS // 2 + FOUR_SCALES // 2, 64):
            ask(wanted + line)
        a = add_half_int4k(row, scales, x, about, a)
        b = add_half_int4k(row, scales, y, other, b)
    return total(a), total(b)


@device
def _two_int6k(matrix: int, row: int, mine: int, yours: int, wanted: int) -> tuple[float, float]:
    size, a, b = load_i64(matrix + PADDED), splat(0.0), splat(0.0)
    x, about = load_i64(mine + DIGITS), load_i64(mine + FLOATS)
    y, other = load_i64(yours + DIGITS), load_i64(yours + FLOATS)
    scales = row + size // 4 * 3
    for _ in range(size // 512):
        for line in range(0, SIXES + SIX_SCALES, 64):
            ask(wanted + line)
        a = add_int6k(row, scales, x, about, a)
        b = add_int6k(row, scales, y, other, b)
        row, scales, wanted = row + SIXES, scales + SIX_SCALES, wanted + SIXES + SIX_SCALES
        x, about, y, other = x + X_DIGITS, about + X_FLOATS, y + X_DIGITS, other + X_FLOATS
    if size % 512 != 0:
        for line in range(0, SIXES // 2 + SIX_SCALES // 2, 64):
            ask(wanted + line)
        a = add_half_int6k(row, scales, x, about, a)
        b = add_half_int6k(row, scales, y, other, b)
    return total(a), total(b)
