"""Dot products of rows of int2k and int3k with one token, and with two.

Every 16 inputs have a scale of their own, so a lane sums the halves of its group apart. Where rows
end with half a block its lanes are halves of groups. Sums of activations, which zeros and minima
are multiplied with, come with them (`decode.kquant_dots.split_for_kquants`).
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.decode.dot_arguments import Product, prefetch_lines
from sparity_edge.kernels.decode.kquant_dots import X_DIGITS, X_FLOATS, X_ZEROS
from sparity_edge.kernels.kept.lows_registers import (
    eighth,
    eighth_threes,
    first_twos,
    fourth_twos,
    half_three_scales,
    high_threes,
    low_threes,
    quarter,
    second_twos,
    seventh_threes,
    third_of_half,
    third_twos,
    thirty_second,
)
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import INT3K, PADDED
from sparity_edge.kernels.simd.byte_dots import (
    dot_first_half,
    dot_second_half,
    load_both_nibbles,
    no_integers,
    to_floats,
)
from sparity_edge.kernels.simd.conversions import load_high, load_low
from sparity_edge.kernels.simd.kquants import (
    half_least_factor,
    half_scale_factor,
    half_six_factor,
    join_halves,
    least_factors,
    load_minima,
    load_scales,
    plus,
    scale_factors,
    six_factors,
)
from sparity_edge.kernels.simd.memory import load, load_bytes, load_i64, load_integers
from sparity_edge.kernels.simd.vectors import fma, mul, splat, sub, total

# Bytes of a block: numbers, scales.
TWOS, TWO_SCALES, THREES, THREE_SCALES = 128, 40, 192, 28
TWO = tuple[float, float]


@inlined
def scales_at(width: int, size: int) -> int:
    """Where in a row of `size` inputs, whose blocks have `width` bytes, scales stand."""
    return size // 512 * width + size // 256 % 2 * (width // 2)


# --- two bits ---------------------------------------------------------------------------------


@inlined
def _sum_twos(numbers: int, x: int) -> Any:
    """The sums of sixteen inputs of each lane of int2k, as float32: below 16 * 3 * 2**15."""
    packed = load_bytes(numbers)
    t = first_twos(packed)
    a, b = dot_first_half(no_integers(), t, load_bytes(x)), no_integers()
    b = dot_second_half(b, t, load_bytes(x + 64))
    t = second_twos(packed)
    c, d = dot_first_half(no_integers(), t, load_bytes(x + 128)), no_integers()
    d = dot_second_half(d, t, load_bytes(x + 192))
    t = third_twos(packed)
    a, b = dot_first_half(a, t, load_bytes(x + 256)), dot_second_half(b, t, load_bytes(x + 320))
    t = fourth_twos(packed)
    c, d = dot_first_half(c, t, load_bytes(x + 384)), dot_second_half(d, t, load_bytes(x + 448))
    return to_floats(plus(join_halves(a, b), quarter(join_halves(c, d))))


@inlined
def two_factors(scales: int, whole: bool) -> tuple[Any, Any]:
    """What scales and minima of the lanes of int2k are multiples of."""
    if whole:
        return scale_factors(scales + 32), least_factors(scales + 32)
    return half_scale_factor(scales + 16), half_least_factor(scales + 16)


@inlined
def add_twos(numbers: int, scales: int, whole: bool, x: int, about: int, result: Any) -> Any:
    """Add a block, or half of one, whose activations stand at x and `about`."""
    # -32 times the sums of activations are whole numbers below 2**24.
    sums = mul(load_low(scales), _sum_twos(numbers, x))
    least = mul(load_high(scales), to_floats(load_integers(about + X_ZEROS)))
    if whole:
        sums = fma(load_low(scales + 16), _sum_twos(numbers + 64, x + 512), sums)
        zeros = to_floats(load_integers(about + X_ZEROS + 64))
        least = fma(load_high(scales + 16), zeros, least)
    factor, least_factor = two_factors(scales, whole)
    sums = fma(mul(least_factor, splat(0.03125)), least, mul(factor, sums))
    return fma(load(about), sums, result)


# --- three bits -------------------------------------------------------------------------------


@inlined
def _sum_first_threes(numbers: int, x: int, zeros: int) -> Any:
    """The sums of the first sixteen inputs of each lane of a block of int3k, as float32.

    Sums that are eight times too large begin at -32 times the sum of activations, which makes the
    whole one of products of at most 4 * MOST: below 2**21.
    """
    first, second = load_bytes(numbers), load_bytes(numbers + 64)
    t = low_threes(first)
    a, b = dot_first_half(no_integers(), t, load_bytes(x)), no_integers()
    b = dot_second_half(b, t, load_bytes(x + 64))
    t = high_threes(first)
    c = dot_first_half(no_integers(), t, load_bytes(x + 128))
    d = dot_second_half(load_integers(zeros), t, load_bytes(x + 192))
    t = low_threes(second)
    a, b = dot_first_half(a, t, load_bytes(x + 256)), dot_second_half(b, t, load_bytes(x + 320))
    t = high_threes(second)
    c, d = dot_first_half(c, t, load_bytes(x + 384)), dot_second_half(d, t, load_bytes(x + 448))
    return to_floats(plus(join_halves(a, b), eighth(join_halves(c, d))))


@inlined
def _sum_second_threes(numbers: int, x: int, zeros: int) -> Any:
    """The sums of the second sixteen inputs of each lane of a block of int3k, as float32."""
    last = load_bytes(numbers + 128)
    t = low_threes(last)
    a, b = dot_first_half(no_integers(), t, load_bytes(x)), no_integers()
    b = dot_second_half(b, t, load_bytes(x + 64))
    t = high_threes(last)
    c = dot_first_half(no_integers(), t, load_bytes(x + 128))
    d = dot_second_half(load_integers(zeros), t, load_bytes(x + 192))
    t = seventh_threes(load_bytes(numbers), last)
    e, f = dot_first_half(no_integers(), t, load_bytes(x + 256)), no_integers()
    f = dot_second_half(f, t, load_bytes(x + 320))
    t = eighth_threes(load_bytes(numbers + 64), last)
    e, f = dot_first_half(e, t, load_bytes(x + 384)), dot_second_half(f, t, load_bytes(x + 448))
    in_place = plus(eighth(join_halves(c, d)), thirty_second(join_halves(e, f)))
    return to_floats(plus(join_halves(a, b), in_place))


@inlined
def _sum_half_threes(numbers: int, x: int, zeros: int) -> Any:
    """The sums of sixteen inputs of each lane of half a block of int3k, as float32."""
    first, nibbles = load_bytes(numbers), load_both_nibbles(numbers + 64)
    t = low_threes(first)
    a, b = dot_first_half(no_integers(), t, load_bytes(x)), no_integers()
    b = dot_second_half(b, t, load_bytes(x + 64))
    t = high_threes(first)
    c = dot_first_half(no_integers(), t, load_bytes(x + 128))
    d = dot_second_half(load_integers(zeros), t, load_bytes(x + 192))
    t = third_of_half(first, nibbles)
    e, f = dot_first_half(no_integers(), t, load_bytes(x + 256)), no_integers()
    f = dot_second_half(f, t, load_bytes(x + 320))
    t = low_threes(nibbles)
    a, b = dot_first_half(a, t, load_bytes(x + 384)), dot_second_half(b, t, load_bytes(x + 448))
    in_place = plus(eighth(join_halves(c, d)), thirty_second(join_halves(e, f)))
    return to_floats(plus(join_halves(a, b), in_place))


@inlined
def three_scales(scales: int, whole: bool) -> tuple[Any, Any]:
    """Scales of the lanes of int3k, of first and of second halves of groups; not multiplied yet.

    Of half a block the first are of all lanes, and the second are the same again.
    """
    if whole:
        return sub(load_scales(scales), splat(32.0)), sub(load_minima(scales), splat(32.0))
    of_lanes = sub(half_three_scales(scales), splat(32.0))
    return of_lanes, of_lanes


@inlined
def three_factors(scales: int, whole: bool) -> Any:
    """What scales of the lanes of int3k are multiples of."""
    return six_factors(scales + 24) if whole else half_six_factor(scales + 12)


@inlined
def add_threes(numbers: int, scales: int, whole: bool, x: int, about: int, result: Any) -> Any:
    """Add a block, or half of one, whose activations stand at x and `about`."""
    first, second = three_scales(scales, whole)
    if whole:
        sums = mul(first, _sum_first_threes(numbers, x, about + X_ZEROS))
        sums = fma(second, _sum_second_threes(numbers, x + 512, about + X_ZEROS + 64), sums)
    else:
        sums = mul(first, _sum_half_threes(numbers, x, about + X_ZEROS))
    return fma(mul(three_factors(scales, whole), load(about)), sums, result)


# --- rows -------------------------------------------------------------------------------------


@inlined
def _dot(add: Any, width: int, behind: int, product: Product, row: int, gap: int) -> float:
    """The product of a row by blocks of `width` bytes of numbers and `behind` bytes of scales."""
    size, result, x, about = (
        load_i64(product.matrix + PADDED),
        splat(0.0),
        product.x,
        product.x_scales,
    )
    ahead, scales = row + gap, row + scales_at(width, size)
    for _ in range(size // 512):
        prefetch_lines(True, ahead, ahead + width + behind)
        result = add(row, scales, True, x, about, result)
        row, scales, x, about = row + width, scales + behind, x + X_DIGITS, about + X_FLOATS
        ahead += width + behind
    if size % 512 != 0:
        prefetch_lines(True, ahead, ahead + (width + behind) // 2)
        result = add(row, scales, False, x, about, result)
    return total(result)


@inlined
def _dots_of_two(
    add: Any, width: int, behind: int, mine: Product, yours: Product, row: int, gap: int
) -> TWO:
    """Two products, each in the order of `_dot`; numbers are unpacked once for both."""
    size, a, b = load_i64(mine.matrix + PADDED), splat(0.0), splat(0.0)
    x, about, y, about_y = mine.x, mine.x_scales, yours.x, yours.x_scales
    ahead, scales = row + gap, row + scales_at(width, size)
    for _ in range(size // 512):
        prefetch_lines(False, ahead, ahead + width + behind)
        a, b = add(row, scales, True, x, about, a), add(row, scales, True, y, about_y, b)
        row, scales, ahead = row + width, scales + behind, ahead + width + behind
        x, y, about, about_y = x + X_DIGITS, y + X_DIGITS, about + X_FLOATS, about_y + X_FLOATS
    if size % 512 != 0:
        prefetch_lines(False, ahead, ahead + (width + behind) // 2)
        a, b = add(row, scales, False, x, about, a), add(row, scales, False, y, about_y, b)
    return total(a), total(b)


@inlined
def following_int2k_dot(product: Product, row: int, gap: int, scratch: int) -> float:  # noqa: ARG001
    """`row_dot` of int2k for rows that follow each other: prefetches are non-temporal."""
    return _dot(add_twos, TWOS, TWO_SCALES, product, row, gap)


@inlined
def following_int3k_dot(product: Product, row: int, gap: int, scratch: int) -> float:  # noqa: ARG001
    """`row_dot` of int3k for rows that follow each other: prefetches are non-temporal."""
    return _dot(add_threes, THREES, THREE_SCALES, product, row, gap)


@device
def lows_dots_of_two(mine: Product, yours: Product, row: int, gap: int, scratch: int) -> TWO:  # noqa: ARG001
    """`row_two_tokens` of int2k and int3k."""
    if mine.dtype == INT3K:
        return _dots_of_two(add_threes, THREES, THREE_SCALES, mine, yours, row, gap)
    return _dots_of_two(add_twos, TWOS, TWO_SCALES, mine, yours, row, gap)
