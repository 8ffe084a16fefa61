"""Products of two rows of an output-major matrix with two tokens: four sums side by side.

The arithmetic of each sum is that of `dots`, step by step, so that its bits are the same. Weights
are taken apart once for both tokens, and four sums grow at once, where two leave a core waiting for
the addition before: on one thread of Zen 5, from cache, rows of 4096 in int4 do 95 products a
nanosecond instead of 71, in int8 66 instead of 52. Superblocks are in `batch_superblocks`.
"""

from __future__ import annotations

from sparity_edge.kernels.batch_superblocks import FOUR, superblock_dots
from sparity_edge.kernels.bytewise import (
    high_nibble_scales,
    high_nibbles_in_place,
    load_both_nibbles,
    load_bytes,
    load_offset_bytes,
    load_offset_bytes_half,
    low_nibbles,
    splat_halves,
    splat_pair,
)
from sparity_edge.kernels.dots import (
    AHEAD,
    DIGITS,
    SCALES,
    SUMS,
    digit_dot,
    join_scales,
    minima_of,
    pace_of,
    two_dots,
)
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import (
    BF16,
    DTYPE,
    F32,
    GROUP,
    HEADER_BYTES,
    INT4K,
    INT8,
    PADDED,
    ROW_BYTES,
)
from sparity_edge.kernels.simd import (
    fma,
    load,
    load_i64,
    load_splat,
    splat,
    total,
)
from sparity_edge.kernels.simd import prefetch_near as ask


@device
def two_rows_two_tokens(
    matrix: int, row: int, other: int, mine: int, yours: int, first: int, second: int, scratch: int
) -> FOUR:
    """The products of two rows with two tokens.

    Args:
        matrix, row, other, first, second: as for `two_dots`.
        mine, yours: the arguments of the two tokens, which differ in their activations.
        scratch: 384 bytes.

    Returns:
        Both rows times my token, then both times yours.
    """
    dtype, pace = load_i64(matrix + DTYPE), pace_of(mine)
    if dtype in (F32, BF16):
        a, b = two_dots(matrix, row, other, mine, first, second, scratch)
        e, f = two_dots(matrix, row, other, yours, first, second, scratch)
        return a, b, e, f
    if dtype >= INT4K:
        if load_i64(mine + AHEAD) != 0:  # which is measured from the last of the rows
            first += load_i64(matrix + ROW_BYTES)
            second = first + 64
        return superblock_dots(matrix, row, other, mine, yours, first, second, pace)
    for _ in range(0, load_i64(matrix + HEADER_BYTES), 64):
        ask(first)
        ask(second)
        first, second = first + pace, second + pace
    if dtype == INT8:
        return _int8(matrix, row, other, mine, yours, first, second, pace, scratch)
    return _int4(matrix, row, other, mine, yours, first, second, pace, scratch)


@device
def _int8(
    matrix: int, row: int, other: int, mine: int, yours: int, first: int, second: int, pace: int,
    scratch: int,
) -> FOUR:  # fmt: skip
    a, b, c, d, one = splat(0.0), splat(0.0), splat(0.0), splat(0.0), splat(1.0)
    e, f, g, h = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    groups, x, y = (
        load_i64(matrix + PADDED) // 32,
        load_i64(mine + DIGITS),
        load_i64(yours + DIGITS),
    )
    group = load_i64(matrix + GROUP)
    for block in range(0, groups, 16):
        left, place = groups - block, 4 * block
        v, w = load(load_i64(mine + SCALES) + place), load(load_i64(mine + SUMS) + place)
        c = join_scales(group, 0, row, block, left, v, w, one, c, scratch)
        d = join_scales(group, 0, other, block, left, v, w, one, d, scratch + 64)
        v, w = load(load_i64(yours + SCALES) + place), load(load_i64(yours + SUMS) + place)
        g = join_scales(group, 0, row, block, left, v, w, one, g, scratch + 128)
        h = join_scales(group, 0, other, block, left, v, w, one, h, scratch + 192)
        count = min(16, left)
        for index in range(0, count - 1, 2):
            s = scratch + 4 * index
            ask(first)
            ask(second)
            first, second = first + pace, second + pace
            v, w = load_offset_bytes(p), load_offset_bytes(q)
            a = fma(splat_halves(s, s + 4), digit_dot(v, x), a)
            b = fma(splat_halves(s + 64, s + 68), digit_dot(w, x), b)
            e = fma(splat_halves(s + 128, s + 132), digit_dot(v, y), e)
            f = fma(splat_halves(s + 192, s + 196), digit_dot(w, y), f)
            p, q, x, y = p + 64, q + 64, x + 128, y + 128
        if count % 2 != 0:
            s = scratch + 4 * (count - 1)
            v, w = load_offset_bytes_half(p), load_offset_bytes_half(q)
            a = fma(load_splat(s), digit_dot(v, x), a)
            b = fma(load_splat(s + 64), digit_dot(w, x), b)
            e = fma(load_splat(s + 128), digit_dot(v, y), e)
            f = fma(load_splat(s + 192), digit_dot(w, y), f)
    zero = splat(-128.0)
    return (
        total(fma(zero, c, a)),
        total(fma(zero, d, b)),
        total(fma(zero, g, e)),
        total(fma(zero, h, f)),
    )


@device
def _int4(
    matrix: int, row: int, other: int, mine: int, yours: int, first: int, second: int, pace: int,
    scratch: int,
) -> FOUR:  # fmt: skip
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    e, f, g, h = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    groups, x, y = (
        load_i64(matrix + PADDED) // 32,
        load_i64(mine + DIGITS),
        load_i64(yours + DIGITS),
    )
    group, minima, parts = load_i64(matrix + GROUP), minima_of(matrix), high_nibble_scales()
    for block in range(0, groups, 16):
        left, place = groups - block, 4 * block
        v, w = load(load_i64(mine + SCALES) + place), load(load_i64(mine + SUMS) + place)
        c = join_scales(group, minima, row, block, left, v, w, parts, c, scratch)
        d = join_scales(group, minima, other, block, left, v, w, parts, d, scratch + 64)
        v, w = load(load_i64(yours + SCALES) + place), load(load_i64(yours + SUMS) + place)
        g = join_scales(group, minima, row, block, left, v, w, parts, g, scratch + 128)
        h = join_scales(group, minima, other, block, left, v, w, parts, h, scratch + 192)
        count = min(16, left)
        for index in range(0, count - 2, 4):
            s = scratch + 4 * index
            ask(first)
            ask(second)
            first, second = first + pace, second + pace
            v, w = load_bytes(p), load_bytes(q)
            i, j = low_nibbles(v), low_nibbles(w)
            a = fma(splat_pair(s), digit_dot(i, x), a)
            b = fma(splat_pair(s + 64), digit_dot(j, x), b)
            e = fma(splat_pair(s + 128), digit_dot(i, y), e)
            f = fma(splat_pair(s + 192), digit_dot(j, y), f)
            i, j = high_nibbles_in_place(v), high_nibbles_in_place(w)
            a = fma(splat_pair(s + 8), digit_dot(i, x + 128), a)
            b = fma(splat_pair(s + 72), digit_dot(j, x + 128), b)
            e = fma(splat_pair(s + 136), digit_dot(i, y + 128), e)
            f = fma(splat_pair(s + 200), digit_dot(j, y + 128), f)
            p, q, x, y = p + 64, q + 64, x + 256, y + 256
        if count % 4 != 0:
            s = scratch + 4 * (count - 2)
            i, j = load_both_nibbles(p), load_both_nibbles(q)
            a = fma(splat_pair(s), digit_dot(i, x), a)
            b = fma(splat_pair(s + 64), digit_dot(j, x), b)
            e = fma(splat_pair(s + 128), digit_dot(i, y), e)
            f = fma(splat_pair(s + 192), digit_dot(j, y), f)
    zero = splat(1.0 if minima != 0 else -8.0)
    return (
        total(fma(zero, c, a)),
        total(fma(zero, d, b)),
        total(fma(zero, g, e)),
        total(fma(zero, h, f)),
    )
