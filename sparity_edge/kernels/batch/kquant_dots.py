"""Dot products of two rows of K-quants (int4k, int6k) with two tokens.

Sums of integers are exact in whatever order, and floats take the steps of `decode.kquant_dots`: the
bits are those of each token alone. Numbers are unpacked once for both tokens, and activations
loaded once for both rows: eight sequences on rows of 1536 in int4k read 19 GB/s of them, row by row
17 (AMD EPYC; `sparity-edge bench --batch`).
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.decode.dot_arguments import DOT
from sparity_edge.kernels.decode.kquant_dots import (
    FOUR_SCALES,
    FOURS,
    SIX_SCALES,
    SIXES,
    X_DIGITS,
    X_FLOATS,
    X_LEAST,
    X_ZEROS,
    int4k_scales,
    int6k_factors,
    kquant_dot,
)
from sparity_edge.kernels.decode.vmm import put
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import DATA, DTYPE, INT4K, PADDED, ROW_BYTES
from sparity_edge.kernels.simd.byte_dots import (
    dot_first_half,
    dot_second_half,
    high_nibbles,
    low_nibbles,
    no_integers,
    to_floats,
)
from sparity_edge.kernels.simd.conversions import load_i8
from sparity_edge.kernels.simd.kquants import join_halves, low_sixes, top_sixes
from sparity_edge.kernels.simd.memory import (
    load,
    load_bytes,
    load_i64,
    load_integers,
    prefetch_near,
)
from sparity_edge.kernels.simd.vectors import fma, mul, splat, total

FOUR = tuple[float, float, float, float]  # both rows times the first token, then times the second


@device
def kquant_dots_of_two(
    matrix: int, row: int, other: int, mine: int, yours: int, ahead: int
) -> FOUR:
    """The dot products of two rows with two tokens, float32.

    Args:
        matrix: the descriptor.
        row, other: the addresses of the rows.
        mine, yours: the argument blocks of the tokens.
        ahead: the address from which twice ROW_BYTES are prefetched.

    Returns:
        Both rows times my token, then both times yours.
    """
    if load_i64(matrix + DTYPE) == INT4K:
        return _int4k(matrix, row, other, mine, yours, ahead)
    return _int6k(matrix, row, other, mine, yours, ahead)


@device
def kquant_rows_by_pairs(each: int, each_bytes: int, tokens: int, first: int, last: int) -> None:
    """Outputs first..last-1 of a matrix of K-quants, two rows and two tokens at a time.

    Args:
        each: the argument block of the first token.
        each_bytes: from one argument block to the next.
        tokens: how many there are.
        first, last: rows of the matrix.
    """
    matrix, ahead = load_i64(each + DOT.matrix), load_i64(each + DOT.ahead)
    row_bytes = load_i64(matrix + ROW_BYTES)
    for output in range(first, last, 2):
        row = load_i64(matrix + DATA) + output * row_bytes
        other = row + row_bytes if output + 1 < last else row
        wanted = other + ahead
        for token in range(0, tokens - 1, 2):
            mine = each + token * each_bytes
            yours = mine + each_bytes
            a, b, c, d = kquant_dots_of_two(matrix, row, other, mine, yours, wanted)
            put(mine, output, a)
            put(yours, output, c)
            if other != row:
                put(mine, output + 1, b)
                put(yours, output + 1, d)
        if tokens % 2 != 0:
            mine = each + (tokens - 1) * each_bytes
            put(mine, output, kquant_dot(matrix, row, mine, wanted))
            if other != row:
                put(mine, output + 1, kquant_dot(matrix, other, mine, wanted + row_bytes))


@inlined
def _add_products(
    t: Any, u: Any, x: int, y: int,
    a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any,
) -> tuple[Any, Any, Any, Any, Any, Any, Any, Any]:  # fmt: skip
    """Add the products of 64 numbers of two rows with both halves of x, and with those of y."""
    v, w = load_bytes(x), load_bytes(x + 64)
    a, b = dot_first_half(a, t, v), dot_second_half(b, t, w)
    c, d = dot_first_half(c, u, v), dot_second_half(d, u, w)
    v, w = load_bytes(y), load_bytes(y + 64)
    e, f = dot_first_half(e, t, v), dot_second_half(f, t, w)
    g, h = dot_first_half(g, u, v), dot_second_half(h, u, w)
    return a, b, c, d, e, f, g, h


@inlined
def add_int4k_of_two(
    row: int, other: int, scales: int, scales_of_other: int, whole: bool,
    x: int, y: int, about: int, about_y: int, a: Any, b: Any, c: Any, d: Any,
) -> tuple[Any, Any, Any, Any]:  # fmt: skip
    """Add a block, or the half block at the end of a row: both rows times x, then times y."""
    e, f, g, h = no_integers(), no_integers(), no_integers(), no_integers()
    i, j, k, m = no_integers(), no_integers(), no_integers(), no_integers()
    for line in range(0, FOURS if whole else FOURS // 2, 64):
        p, q = load_bytes(row + line), load_bytes(other + line)
        v, w = x + 4 * line, y + 4 * line
        t, u = low_nibbles(p), low_nibbles(q)
        e, f, g, h, i, j, k, m = _add_products(t, u, v, w, e, f, g, h, i, j, k, m)
        t, u = high_nibbles(p), high_nibbles(q)
        e, f, g, h, i, j, k, m = _add_products(t, u, v + 128, w + 128, e, f, g, h, i, j, k, m)
    v, w, p, q = load(about), load(about + X_LEAST), load(about_y), load(about_y + X_LEAST)
    scale, least = int4k_scales(scales, whole)
    a = fma(mul(scale, v), to_floats(join_halves(e, f)), fma(least, w, a))
    c = fma(mul(scale, p), to_floats(join_halves(i, j)), fma(least, q, c))
    scale, least = int4k_scales(scales_of_other, whole)
    b = fma(mul(scale, v), to_floats(join_halves(g, h)), fma(least, w, b))
    d = fma(mul(scale, p), to_floats(join_halves(k, m)), fma(least, q, d))
    return a, b, c, d


@device
def _int4k(matrix: int, row: int, other: int, mine: int, yours: int, ahead: int) -> FOUR:
    size = load_i64(matrix + PADDED)
    x, about = load_i64(mine + DOT.digits), load_i64(mine + DOT.scales)
    y, about_y = load_i64(yours + DOT.digits), load_i64(yours + DOT.scales)
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + size // 2, other + size // 2
    for _ in range(size // 512):
        for line in range(0, 2 * (FOURS + FOUR_SCALES), 64):
            prefetch_near(ahead + line)
        a, b, c, d = add_int4k_of_two(row, other, p, q, True, x, y, about, about_y, a, b, c, d)
        row, other, p, q = row + FOURS, other + FOURS, p + FOUR_SCALES, q + FOUR_SCALES
        x, y, about, about_y = x + X_DIGITS, y + X_DIGITS, about + X_FLOATS, about_y + X_FLOATS
        ahead += 2 * (FOURS + FOUR_SCALES)
    if size % 512 != 0:
        for line in range(0, FOURS + FOUR_SCALES, 64):
            prefetch_near(ahead + line)
        a, b, c, d = add_int4k_of_two(row, other, p, q, False, x, y, about, about_y, a, b, c, d)
    return total(a), total(b), total(c), total(d)


@inlined
def _sum_sixes(
    row: int, other: int, x: int, y: int, zeros: int, zeros_y: int
) -> tuple[Any, Any, Any, Any]:
    """The sums of sixteen inputs of each lane, as float32: both rows times x, then times y."""
    a, c, e, g = no_integers(), no_integers(), no_integers(), no_integers()
    b = d = load_integers(zeros)
    f = h = load_integers(zeros_y)
    p, q, r = load_bytes(row), load_bytes(row + 64), load_bytes(row + 128)
    i, j, k = load_bytes(other), load_bytes(other + 64), load_bytes(other + 128)
    t, u = low_sixes(p), low_sixes(i)
    a, b, c, d, e, f, g, h = _add_products(t, u, x, y, a, b, c, d, e, f, g, h)
    t, u = low_sixes(q), low_sixes(j)
    a, b, c, d, e, f, g, h = _add_products(t, u, x + 128, y + 128, a, b, c, d, e, f, g, h)
    t, u = low_sixes(r), low_sixes(k)
    a, b, c, d, e, f, g, h = _add_products(t, u, x + 256, y + 256, a, b, c, d, e, f, g, h)
    t, u = top_sixes(p, q, r), top_sixes(i, j, k)
    a, b, c, d, e, f, g, h = _add_products(t, u, x + 384, y + 384, a, b, c, d, e, f, g, h)
    a, b, c, d = join_halves(a, b), join_halves(c, d), join_halves(e, f), join_halves(g, h)
    return to_floats(a), to_floats(b), to_floats(c), to_floats(d)


@inlined
def add_int6k_of_two(
    row: int, other: int, scales: int, scales_of_other: int, whole: bool,
    x: int, y: int, about: int, about_y: int, a: Any, b: Any, c: Any, d: Any,
) -> tuple[Any, Any, Any, Any]:  # fmt: skip
    """Add a block, or the half block at the end of a row: both rows times x, then times y."""
    e, f, g, h = _sum_sixes(row, other, x, y, about + X_ZEROS, about_y + X_ZEROS)
    v, w = load_i8(scales), load_i8(scales_of_other)
    e, f, g, h = mul(v, e), mul(w, f), mul(v, g), mul(w, h)
    if whole:
        zeros, zeros_y = about + X_ZEROS + 64, about_y + X_ZEROS + 64
        half = SIXES // 2
        i, j, k, m = _sum_sixes(row + half, other + half, x + 512, y + 512, zeros, zeros_y)
        v, w = load_i8(scales + 16), load_i8(scales_of_other + 16)
        e, f, g, h = fma(v, i, e), fma(w, j, f), fma(v, k, g), fma(w, m, h)
    v, w = int6k_factors(scales, whole), int6k_factors(scales_of_other, whole)
    p, q = load(about), load(about_y)
    a, b = fma(mul(v, p), e, a), fma(mul(w, p), f, b)
    return a, b, fma(mul(v, q), g, c), fma(mul(w, q), h, d)


@device
def _int6k(matrix: int, row: int, other: int, mine: int, yours: int, ahead: int) -> FOUR:
    size = load_i64(matrix + PADDED)
    x, about = load_i64(mine + DOT.digits), load_i64(mine + DOT.scales)
    y, about_y = load_i64(yours + DOT.digits), load_i64(yours + DOT.scales)
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + size // 4 * 3, other + size // 4 * 3
    for _ in range(size // 512):
        for line in range(0, 2 * (SIXES + SIX_SCALES), 64):
            prefetch_near(ahead + line)
        a, b, c, d = add_int6k_of_two(row, other, p, q, True, x, y, about, about_y, a, b, c, d)
        row, other, p, q = row + SIXES, other + SIXES, p + SIX_SCALES, q + SIX_SCALES
        x, y, about, about_y = x + X_DIGITS, y + X_DIGITS, about + X_FLOATS, about_y + X_FLOATS
        ahead += 2 * (SIXES + SIX_SCALES)
    if size % 512 != 0:
        for line in range(0, SIXES + SIX_SCALES, 64):
            prefetch_near(ahead + line)
        a, b, c, d = add_int6k_of_two(row, other, p, q, False, x, y, about, about_y, a, b, c, d)
    return total(a), total(b), total(c), total(d)
