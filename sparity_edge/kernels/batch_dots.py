"""Products of two rows of an output-major matrix with two tokens: four sums side by side.

The arithmetic of each sum is that of `dots` and `superblocks`, step by step, so that its bits are
the same. There a core waits for sums (two chains of additions, each eight cycles a 64 bytes); here
it does not, which makes two tokens little more work than one: see `two_rows_two_tokens`.
"""

from __future__ import annotations

from sparity_edge.kernels.bytewise import (
    high_nibble_scales,
    high_nibbles,
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
    DIGITS,
    NEAR,
    X,
    _ask_headers,
    _digit_dot,
    _join_scales,
    _turn,
    two_dots,
)
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import (
    DTYPE,
    HEADER_BYTES,
    INT4,
    INT4K,
    INT8,
    MINIMUM,
    PADDED,
)
from sparity_edge.kernels.quads import (
    load_u8,
    low_sixes,
    quad_dot,
    repeat_four,
    top_sixes,
    upper_half,
)
from sparity_edge.kernels.simd import (
    fma,
    load,
    load_f16,
    load_i8,
    load_i64,
    load_splat,
    mul,
    splat,
    store,
    sub,
    total,
)
from sparity_edge.kernels.simd import prefetch_near as ask
from sparity_edge.kernels.superblocks import BLOCK, FLOATS, X_FLOATS, X_OFFSETS, X_SIXTEENS
from sparity_edge.kernels.superblocks import _turn as _turn_of_superblocks

FOUR = tuple[float, float, float, float]


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
    dtype = load_i64(matrix + DTYPE)
    if dtype == INT8:
        return _int8(matrix, row, other, mine, yours, first, second, scratch)
    if dtype == INT4:
        return _int4(matrix, row, other, mine, yours, first, second, scratch)
    if dtype == INT4K:
        ahead, behind = first - row, second - other
        return _int4k(matrix, row, other, mine, yours, ahead, behind, scratch)
    if dtype > INT4K:
        ahead, behind = first - row, second - other
        return _int6k(matrix, row, other, mine, yours, ahead, behind, scratch)
    a, b = two_dots(matrix, row, other, mine, first, second, scratch)
    e, f = two_dots(matrix, row, other, yours, first, second, scratch)
    return a, b, e, f


@device
def _int8(
    matrix: int, row: int, other: int, mine: int, yours: int, first: int, second: int, scratch: int
) -> FOUR:
    a, b, c, d, one = splat(0.0), splat(0.0), splat(0.0), splat(0.0), splat(1.0)
    e, f, g, h = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    groups, x, y = (
        load_i64(matrix + PADDED) // 32,
        load_i64(mine + DIGITS),
        load_i64(yours + DIGITS),
    )
    turn = _turn(groups, NEAR // 32, mine)
    ahead = behind = 32 * (groups - turn)
    for block in range(0, groups, 16):
        c = _join_scales(matrix, row, block, mine, one, c, scratch)
        d = _join_scales(matrix, other, block, mine, one, d, scratch + 64)
        g = _join_scales(matrix, row, block, yours, one, g, scratch + 128)
        h = _join_scales(matrix, other, block, yours, one, h, scratch + 192)
        _ask_headers(matrix, block, first, second)
        if block >= turn:
            ahead, behind = first - row - 32 * turn, second - other - 32 * turn
        count = min(16, groups - block)
        for index in range(0, count - 1, 2):
            s = scratch + 4 * index
            ask(p + ahead)
            ask(q + behind)
            v, w = load_offset_bytes(p), load_offset_bytes(q)
            a = fma(splat_halves(s, s + 4), _digit_dot(v, x), a)
            b = fma(splat_halves(s + 64, s + 68), _digit_dot(w, x), b)
            e = fma(splat_halves(s + 128, s + 132), _digit_dot(v, y), e)
            f = fma(splat_halves(s + 192, s + 196), _digit_dot(w, y), f)
            p, q, x, y = p + 64, q + 64, x + 128, y + 128
        if count % 2 != 0:
            s = scratch + 4 * (count - 1)
            v, w = load_offset_bytes_half(p), load_offset_bytes_half(q)
            a = fma(load_splat(s), _digit_dot(v, x), a)
            b = fma(load_splat(s + 64), _digit_dot(w, x), b)
            e = fma(load_splat(s + 128), _digit_dot(v, y), e)
            f = fma(load_splat(s + 192), _digit_dot(w, y), f)
    zero = splat(-128.0)
    return (
        total(fma(zero, c, a)),
        total(fma(zero, d, b)),
        total(fma(zero, g, e)),
        total(fma(zero, h, f)),
    )


@device
def _int4(
    matrix: int, row: int, other: int, mine: int, yours: int, first: int, second: int, scratch: int
) -> FOUR:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    e, f, g, h = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    groups, x, y = (
        load_i64(matrix + PADDED) // 32,
        load_i64(mine + DIGITS),
        load_i64(yours + DIGITS),
    )
    turn, parts = _turn(groups, NEAR // 16, mine), high_nibble_scales()
    ahead = behind = 16 * (groups - turn)
    for block in range(0, groups, 16):
        c = _join_scales(matrix, row, block, mine, parts, c, scratch)
        d = _join_scales(matrix, other, block, mine, parts, d, scratch + 64)
        g = _join_scales(matrix, row, block, yours, parts, g, scratch + 128)
        h = _join_scales(matrix, other, block, yours, parts, h, scratch + 192)
        _ask_headers(matrix, block, first, second)
        if block >= turn:
            ahead, behind = first - row - 16 * turn, second - other - 16 * turn
        count = min(16, groups - block)
        for index in range(0, count - 2, 4):
            s = scratch + 4 * index
            ask(p + ahead)
            ask(q + behind)
            v, w = load_bytes(p), load_bytes(q)
            i, j = low_nibbles(v), low_nibbles(w)
            a = fma(splat_pair(s), _digit_dot(i, x), a)
            b = fma(splat_pair(s + 64), _digit_dot(j, x), b)
            e = fma(splat_pair(s + 128), _digit_dot(i, y), e)
            f = fma(splat_pair(s + 192), _digit_dot(j, y), f)
            i, j = high_nibbles_in_place(v), high_nibbles_in_place(w)
            a = fma(splat_pair(s + 8), _digit_dot(i, x + 128), a)
            b = fma(splat_pair(s + 72), _digit_dot(j, x + 128), b)
            e = fma(splat_pair(s + 136), _digit_dot(i, y + 128), e)
            f = fma(splat_pair(s + 200), _digit_dot(j, y + 128), f)
            p, q, x, y = p + 64, q + 64, x + 256, y + 256
        if count % 4 != 0:
            s = scratch + 4 * (count - 2)
            i, j = load_both_nibbles(p), load_both_nibbles(q)
            a = fma(splat_pair(s), _digit_dot(i, x), a)
            b = fma(splat_pair(s + 64), _digit_dot(j, x), b)
            e = fma(splat_pair(s + 128), _digit_dot(i, y), e)
            f = fma(splat_pair(s + 192), _digit_dot(j, y), f)
    zero = splat(1.0 if load_i64(matrix + MINIMUM) != 0 else -8.0)
    return (
        total(fma(zero, c, a)),
        total(fma(zero, d, b)),
        total(fma(zero, g, e)),
        total(fma(zero, h, f)),
    )


@device
def _int4k(
    matrix: int, row: int, other: int, mine: int, yours: int, ahead: int, behind: int, scratch: int
) -> FOUR:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    e, f, g, h = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    x, about = load_i64(mine + DIGITS), load_i64(mine + FLOATS)
    y, about_y = load_i64(yours + DIGITS), load_i64(yours + FLOATS)
    blocks = load_i64(matrix + PADDED) // BLOCK
    factors, factors_other = row + 16 * blocks, other + 16 * blocks
    turn = _turn_of_superblocks(blocks, NEAR // 128, mine)
    near = near_other = 128 * (blocks - turn)
    for start in range(0, blocks, 8):
        # The factors of eight superblocks, two of each.
        store(scratch, load_f16(factors + 4 * start, 16))
        store(scratch + 64, load_f16(factors_other + 4 * start, 16))
        ask(factors + 4 * start + ahead)
        ask(factors_other + 4 * start + behind)
        place = scratch
        for block in range(start, min(start + 8, blocks)):
            if block >= turn:
                near, near_other = ahead - 128 * turn, behind - 128 * turn
            # Scales and minima of the eight groups, times those of activations.
            v, w, s = load_u8(row), load_u8(other), scratch + 128
            m, n = mul(v, load(about)), mul(w, load(about))
            k, l = mul(v, load(about_y)), mul(w, load(about_y))
            store(s, m)
            store(s + 64, n)
            store(s + 128, k)
            store(s + 192, l)
            ask(row + ahead)
            ask(other + behind)
            least, least_other = load_splat(place + 4), load_splat(place + 68)
            c, d = fma(m, least, c), fma(n, least_other, d)
            g, h = fma(k, least, g), fma(l, least_other, h)
            m, n, k, l = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for s in (scratch + 128, scratch + 144):
                ask(p + near)
                ask(q + near_other)
                i, j = load_bytes(p), load_bytes(q)
                t, u = low_nibbles(i), low_nibbles(j)
                m = fma(splat_pair(s), quad_dot(t, x), m)
                n = fma(splat_pair(s + 64), quad_dot(u, x), n)
                k = fma(splat_pair(s + 128), quad_dot(t, y), k)
                l = fma(splat_pair(s + 192), quad_dot(u, y), l)
                t, u = high_nibbles(i), high_nibbles(j)
                m = fma(splat_pair(s + 8), quad_dot(t, x + 128), m)
                n = fma(splat_pair(s + 72), quad_dot(u, x + 128), n)
                k = fma(splat_pair(s + 136), quad_dot(t, y + 128), k)
                l = fma(splat_pair(s + 200), quad_dot(u, y + 128), l)
                p, q, x, y = p + 64, q + 64, x + 256, y + 256
            factor, factor_other = load_splat(place), load_splat(place + 64)
            a, b = fma(m, factor, a), fma(n, factor_other, b)
            e, f = fma(k, factor, e), fma(l, factor_other, f)
            row, other, place = row + 16, other + 16, place + 8
            about, about_y = about + X_FLOATS, about_y + X_FLOATS
    c, d, g, h = upper_half(c), upper_half(d), upper_half(g), upper_half(h)
    return total(sub(a, c)), total(sub(b, d)), total(sub(e, g)), total(sub(f, h))


@device
def _int6k(
    matrix: int, row: int, other: int, mine: int, yours: int, ahead: int, behind: int, scratch: int
) -> FOUR:
    a, b, e, f = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    x, about = load_i64(mine + DIGITS), load_i64(mine + FLOATS)
    y, about_y = load_i64(yours + DIGITS), load_i64(yours + FLOATS)
    blocks = load_i64(matrix + PADDED) // BLOCK
    factors, factors_other = row + 16 * blocks, other + 16 * blocks
    turn = _turn_of_superblocks(blocks, NEAR // 192, mine)
    near = near_other = 192 * (blocks - turn)
    for start in range(0, blocks, 16):
        store(scratch, load_f16(factors + 2 * start, 16))
        store(scratch + 64, load_f16(factors_other + 2 * start, 16))
        ask(factors + 2 * start + ahead)
        ask(factors_other + 2 * start + behind)
        place = scratch
        for block in range(start, min(start + 16, blocks)):
            if block >= turn:
                near, near_other = ahead - 192 * turn, behind - 192 * turn
            v, w, s = load_i8(row), load_i8(other), scratch + 128
            m, n = mul(v, load(about + X_SIXTEENS)), mul(w, load(about + X_SIXTEENS))
            k, l = mul(v, load(about_y + X_SIXTEENS)), mul(w, load(about_y + X_SIXTEENS))
            store(s, m)
            store(s + 64, n)
            store(s + 128, k)
            store(s + 192, l)
            ask(row + ahead)
            ask(other + behind)
            m, n = mul(m, load(about + X_OFFSETS)), mul(n, load(about + X_OFFSETS))
            k, l = mul(k, load(about_y + X_OFFSETS)), mul(l, load(about_y + X_OFFSETS))
            for line in range(0, 192, 64):
                ask(p + near + line)
                ask(q + near_other + line)
            c, d, g = load_bytes(p), load_bytes(p + 64), load_bytes(p + 128)
            h, i, j = load_bytes(q), load_bytes(q + 64), load_bytes(q + 128)
            t, u = low_sixes(c), low_sixes(h)
            m, n = (
                fma(repeat_four(s), quad_dot(t, x), m),
                fma(repeat_four(s + 64), quad_dot(u, x), n),
            )
            k, l = (
                fma(repeat_four(s + 128), quad_dot(t, y), k),
                fma(repeat_four(s + 192), quad_dot(u, y), l),
            )
            t, u, s = low_sixes(d), low_sixes(i), s + 16
            m, n = (
                fma(repeat_four(s), quad_dot(t, x + 128), m),
                fma(repeat_four(s + 64), quad_dot(u, x + 128), n),
            )
            k, l = (
                fma(repeat_four(s + 128), quad_dot(t, y + 128), k),
                fma(repeat_four(s + 192), quad_dot(u, y + 128), l),
            )
            t, u, s = low_sixes(g), low_sixes(j), s + 16
            m, n = (
                fma(repeat_four(s), quad_dot(t, x + 256), m),
                fma(repeat_four(s + 64), quad_dot(u, x + 256), n),
            )
            k, l = (
                fma(repeat_four(s + 128), quad_dot(t, y + 256), k),
                fma(repeat_four(s + 192), quad_dot(u, y + 256), l),
            )
            t, u, s = top_sixes(c, d, g), top_sixes(h, i, j), s + 16
            m, n = (
                fma(repeat_four(s), quad_dot(t, x + 384), m),
                fma(repeat_four(s + 64), quad_dot(u, x + 384), n),
            )
            k, l = (
                fma(repeat_four(s + 128), quad_dot(t, y + 384), k),
                fma(repeat_four(s + 192), quad_dot(u, y + 384), l),
            )
            factor, factor_other = load_splat(place), load_splat(place + 64)
            a, b = fma(m, factor, a), fma(n, factor_other, b)
            e, f = fma(k, factor, e), fma(l, factor_other, f)
            p, q, x, y = p + 192, q + 192, x + 2 * BLOCK, y + 2 * BLOCK
            row, other, place = row + 16, other + 16, place + 4
            about, about_y = about + X_FLOATS, about_y + X_FLOATS
    return total(a), total(b), total(e), total(f)
