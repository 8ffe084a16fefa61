"""Products of two rows of superblocks (int4k, int6k) with two tokens: see `batch_dots`.

The arithmetic of each sum is that of `superblocks`, step by step, so that its bits are the same.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.bytewise import high_nibbles, load_bytes, low_nibbles, splat_pair
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import HEADER_BYTES, PADDED
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
from sparity_edge.kernels.superblocks import (
    BLOCK,
    DIGITS,
    FLOATS,
    X_FLOATS,
    X_OFFSETS,
    X_SIXTEENS,
)

FOUR = tuple[float, float, float, float]  # both rows times the first token, then times the second


@device
def four_dots_int4k(
    matrix: int, row: int, other: int, mine: int, yours: int, first: int, second: int, pace: int,
    scratch: int,
) -> FOUR:  # fmt: skip
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    e, f, g, h = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    x, about = load_i64(mine + DIGITS), load_i64(mine + FLOATS)
    y, about_y = load_i64(yours + DIGITS), load_i64(yours + FLOATS)
    blocks = load_i64(matrix + PADDED) // BLOCK
    factors, factors_other = row + 16 * blocks, other + 16 * blocks
    for start in range(0, blocks, 8):
        # The factors of eight superblocks, two of each.
        store(scratch, load_f16(factors + 4 * start, 16))
        store(scratch + 64, load_f16(factors_other + 4 * start, 16))
        place = scratch
        for _ in range(start, min(start + 8, blocks)):
            # Scales and minima of the eight groups, times those of activations.
            v, w, s = load_u8(row), load_u8(other), scratch + 128
            m, n = mul(v, load(about)), mul(w, load(about))
            k, o = mul(v, load(about_y)), mul(w, load(about_y))
            store(s, m)
            store(s + 64, n)
            store(s + 128, k)
            store(s + 192, o)
            least, least_other = load_splat(place + 4), load_splat(place + 68)
            c, d = fma(m, least, c), fma(n, least_other, d)
            g, h = fma(k, least, g), fma(o, least_other, h)
            m, n, k, o = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for s in (scratch + 128, scratch + 144):
                ask(first)
                ask(second)
                first, second = first + pace, second + pace
                i, j = load_bytes(p), load_bytes(q)
                t, u = low_nibbles(i), low_nibbles(j)
                m = fma(splat_pair(s), quad_dot(t, x), m)
                n = fma(splat_pair(s + 64), quad_dot(u, x), n)
                k = fma(splat_pair(s + 128), quad_dot(t, y), k)
                o = fma(splat_pair(s + 192), quad_dot(u, y), o)
                t, u = high_nibbles(i), high_nibbles(j)
                m = fma(splat_pair(s + 8), quad_dot(t, x + 128), m)
                n = fma(splat_pair(s + 72), quad_dot(u, x + 128), n)
                k = fma(splat_pair(s + 136), quad_dot(t, y + 128), k)
                o = fma(splat_pair(s + 200), quad_dot(u, y + 128), o)
                p, q, x, y = p + 64, q + 64, x + 256, y + 256
            factor, factor_other = load_splat(place), load_splat(place + 64)
            a, b = fma(m, factor, a), fma(n, factor_other, b)
            e, f = fma(k, factor, e), fma(o, factor_other, f)
            row, other, place = row + 16, other + 16, place + 8
            about, about_y = about + X_FLOATS, about_y + X_FLOATS
    c, d, g, h = upper_half(c), upper_half(d), upper_half(g), upper_half(h)
    return total(sub(a, c)), total(sub(b, d)), total(sub(e, g)), total(sub(f, h))


@device
def _quad(
    scales: int, left: Any, right: Any, x: int, y: int, a: Any, b: Any, c: Any, d: Any
) -> tuple[Any, Any, Any, Any]:
    """Add a unit of two rows times two tokens, each product with its four scales."""
    a = fma(repeat_four(scales), quad_dot(left, x), a)
    b = fma(repeat_four(scales + 64), quad_dot(right, x), b)
    c = fma(repeat_four(scales + 128), quad_dot(left, y), c)
    d = fma(repeat_four(scales + 192), quad_dot(right, y), d)
    return a, b, c, d


@device
def four_dots_int6k(
    matrix: int, row: int, other: int, mine: int, yours: int, first: int, second: int, pace: int,
    scratch: int,
) -> FOUR:  # fmt: skip
    a, b, e, f = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    x, about = load_i64(mine + DIGITS), load_i64(mine + FLOATS)
    y, about_y = load_i64(yours + DIGITS), load_i64(yours + FLOATS)
    blocks = load_i64(matrix + PADDED) // BLOCK
    factors, factors_other = row + 16 * blocks, other + 16 * blocks
    for start in range(0, blocks, 16):
        store(scratch, load_f16(factors + 2 * start, 16))
        store(scratch + 64, load_f16(factors_other + 2 * start, 16))
        place = scratch
        for _ in range(start, min(start + 16, blocks)):
            v, w, s = load_i8(row), load_i8(other), scratch + 128
            m, n = mul(v, load(about + X_SIXTEENS)), mul(w, load(about + X_SIXTEENS))
            k, o = mul(v, load(about_y + X_SIXTEENS)), mul(w, load(about_y + X_SIXTEENS))
            store(s, m)
            store(s + 64, n)
            store(s + 128, k)
            store(s + 192, o)
            m, n = mul(m, load(about + X_OFFSETS)), mul(n, load(about + X_OFFSETS))
            k, o = mul(k, load(about_y + X_OFFSETS)), mul(o, load(about_y + X_OFFSETS))
            for _ in range(3):
                ask(first)
                ask(second)
                first, second = first + pace, second + pace
            c, d, g = load_bytes(p), load_bytes(p + 64), load_bytes(p + 128)
            h, i, j = load_bytes(q), load_bytes(q + 64), load_bytes(q + 128)
            # Three units of low bits, then one of what the three have on top.
            m, n, k, o = _quad(s, low_sixes(c), low_sixes(h), x, y, m, n, k, o)
            m, n, k, o = _quad(s + 16, low_sixes(d), low_sixes(i), x + 128, y + 128, m, n, k, o)
            m, n, k, o = _quad(s + 32, low_sixes(g), low_sixes(j), x + 256, y + 256, m, n, k, o)
            t, u = top_sixes(c, d, g), top_sixes(h, i, j)
            m, n, k, o = _quad(s + 48, t, u, x + 384, y + 384, m, n, k, o)
            factor, factor_other = load_splat(place), load_splat(place + 64)
            a, b = fma(m, factor, a), fma(n, factor_other, b)
            e, f = fma(k, factor, e), fma(o, factor_other, f)
            p, q, x, y = p + 192, q + 192, x + 2 * BLOCK, y + 2 * BLOCK
            row, other, place = row + 16, other + 16, place + 4
            about, about_y = about + X_FLOATS, about_y + X_FLOATS
    return total(a), total(b), total(e), total(f)
