"""Dot products of K-quants (int4k, int6k), and the activations that they take.

A lane of a byte dot product belongs to one group of a block of 512 inputs (drawn in
`simd/kquants.py`), so that whole groups are summed in integers and sixteen of them are scaled at
once. From L2, rows of 1536 in int4k go 1.4 times as fast as with interleaved groups (AMD EPYC;
bench/kernels.py). Rows end with half a block, of eight groups with two lanes each, where the
number of 256s is odd.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.decode.dot_arguments import DOT, prefetch_lines
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import DTYPE, INT4K, PADDED
from sparity_edge.kernels.simd.byte_dots import (
    dot_first_half,
    dot_second_half,
    high_nibbles_in_place,
    low_nibbles,
    no_integers,
    to_floats,
)
from sparity_edge.kernels.simd.conversions import load_i8
from sparity_edge.kernels.simd.kquants import (
    half_least_factor,
    half_scale_factor,
    half_six_factor,
    join_halves,
    least_factors,
    load_half_minima,
    load_half_scales,
    load_minima,
    load_scales,
    low_sixes,
    plus,
    scale_factors,
    six_factors,
    sixteenth,
    store_kquant_digits,
    top_sixes,
)
from sparity_edge.kernels.simd.memory import (
    load,
    load_bytes,
    load_i64,
    load_integers,
    store_f32,
    store_whole,
)
from sparity_edge.kernels.simd.vectors import add, fma, largest, maximum, mul, splat, sub, total

MOST = 127 * 256  # of an activation, so that its high digit fits into a signed byte
# Of a block of activations: bytes of digits, then of what goes with them: the scale of every lane,
# minus scale times sum, and -32 times the sums of the first and the second half of its group.
X_DIGITS, X_LEAST, X_ZEROS, X_FLOATS = 1024, 64, 128, 256
# Bytes of a block of weights: numbers, scales.
FOURS, FOUR_SCALES, SIXES, SIX_SCALES = 256, 32, 384, 36


@device
def split_for_kquants(x: int, index: int, groups: int, digits: int, floats: int) -> None:
    """Quantise group `index` of `groups` of 32 activations to 16 bits.

    Args:
        x: the address of the activations, float32.
        index: of the group.
        groups: of all activations.
        digits: where blocks of X_DIGITS bytes go, in the order of the weights.
        floats: where blocks of X_FLOATS bytes go: scales and what else is said above.
    """
    v, w = load(x + 128 * index), load(x + 128 * index + 64)
    sizes = maximum(maximum(v, sub(splat(0.0), v)), maximum(w, sub(splat(0.0), w)))
    most = largest(sizes)
    # NaN is lost in the comparisons; 0 * x brings it back.
    scale = most / MOST + total(mul(add(v, w), splat(0.0)))
    inverse = splat(MOST / most) if most > 0 else splat(0.0)
    whole = index < groups // 16 * 16
    place = digits + index // 16 * X_DIGITS + index % 16 * 4
    left = total(store_kquant_digits(place, mul(v, inverse)))
    right = total(store_kquant_digits(place + (512 if whole else 32), mul(w, inverse)))
    floats += index // 16 * X_FLOATS + index % 16 * 4
    store_f32(floats, scale)
    # Whole numbers, of which -32 times is one that a float32 holds: sums of integers start there.
    store_whole(floats + X_ZEROS, -32 * left)
    if whole:
        store_f32(floats + X_LEAST, -scale * (left + right))
        store_whole(floats + X_ZEROS + 64, -32 * right)
    else:
        store_f32(floats + 32, scale)
        store_f32(floats + X_LEAST, -scale * left)
        store_f32(floats + X_LEAST + 32, -scale * right)
        store_whole(floats + X_ZEROS + 32, -32 * right)


# --- products -------------------------------------------------------------------------------


@inlined
def _sum_fours(numbers: int, nbytes: int, x: int) -> Any:
    """The sums of each lane of a block of int4k (or half of one).

    A lane adds 32 products of at most 15 * MOST, less than 2**24: exact as float32, too. On the way
    there are 16 products of a digit at a time, at most 240 * 128 each, of which the high ones count
    256 times: less than 2**27. Four independent sums wait less for each other: rows of 1536 from L2
    gave 108 GB/s, and 95 with two (AMD EPYC; bench/kernels.py).
    """
    a, b, c, d = no_integers(), no_integers(), no_integers(), no_integers()
    for line in range(0, nbytes, 64):
        packed = load_bytes(numbers + line)
        low, high = low_nibbles(packed), high_nibbles_in_place(packed)
        place = x + 4 * line
        a = dot_first_half(a, low, load_bytes(place))
        b = dot_second_half(b, low, load_bytes(place + 64))
        c = dot_first_half(c, high, load_bytes(place + 128))
        d = dot_second_half(d, high, load_bytes(place + 192))
    return plus(join_halves(a, b), sixteenth(join_halves(c, d)))


@inlined
def int4k_scales(scales: int, whole: bool) -> tuple[Any, Any]:
    """Scales and minima of the lanes of an int4k block (or half of one), from its scale bytes."""
    if whole:
        least = mul(load_minima(scales), least_factors(scales + 24))
        return mul(load_scales(scales), scale_factors(scales + 24)), least
    least = mul(load_half_minima(scales), half_least_factor(scales + 12))
    return mul(load_half_scales(scales), half_scale_factor(scales + 12)), least


@inlined
def add_int4k(numbers: int, scales: int, whole: bool, x: int, about: int, result: Any) -> Any:
    """Add a block, or half of one, whose activations stand at x and `about`."""
    scale, least = int4k_scales(scales, whole)
    result = fma(least, load(about + X_LEAST), result)
    sums = _sum_fours(numbers, FOURS if whole else FOURS // 2, x)
    return fma(mul(scale, load(about)), to_floats(sums), result)


@inlined
def _sum_sixes(numbers: int, x: int, zeros: int) -> Any:
    """The sums of sixteen inputs of each lane of int6k, as float32.

    Sums of low digits begin at -32 times the sum of activations, which makes the whole one of 16
    products of at most 32 * MOST, less than 2**24: exact as float32, too. On the way there are 16
    of at most 63 * 128, of which the high ones count 256 times: with the beginning less than 2**26.
    """
    e, f, g = load_bytes(numbers), load_bytes(numbers + 64), load_bytes(numbers + 128)
    h = top_sixes(e, f, g)
    e, f, g = low_sixes(e), low_sixes(f), low_sixes(g)
    first, second = no_integers(), load_integers(zeros)
    first = dot_first_half(first, e, load_bytes(x))
    second = dot_second_half(second, e, load_bytes(x + 64))
    first = dot_first_half(first, f, load_bytes(x + 128))
    second = dot_second_half(second, f, load_bytes(x + 192))
    first = dot_first_half(first, g, load_bytes(x + 256))
    second = dot_second_half(second, g, load_bytes(x + 320))
    first = dot_first_half(first, h, load_bytes(x + 384))
    second = dot_second_half(second, h, load_bytes(x + 448))
    return to_floats(join_halves(first, second))


@inlined
def int6k_factors(scales: int, whole: bool) -> Any:
    """The float16 factors of the scales of an int6k block (or half of one), one to a lane."""
    return six_factors(scales + 32) if whole else half_six_factor(scales + 16)


@inlined
def add_int6k(numbers: int, scales: int, whole: bool, x: int, about: int, result: Any) -> Any:
    """Add a block, or half of one, whose activations stand at x and `about`."""
    sums = mul(load_i8(scales), _sum_sixes(numbers, x, about + X_ZEROS))
    if whole:
        other = _sum_sixes(numbers + SIXES // 2, x + 512, about + X_ZEROS + 64)
        sums = fma(load_i8(scales + 16), other, sums)
    return fma(mul(int6k_factors(scales, whole), load(about)), sums, result)


@device
def kquant_dot(matrix: int, row: int, arguments: int, ahead: int) -> float:
    """The dot product of one row of K-quants, float32.

    Args:
        matrix: the descriptor.
        row: the address of the row.
        arguments: the argument block with the activations.
        ahead: the address from which ROW_BYTES are prefetched.
    """
    if load_i64(matrix + DTYPE) == INT4K:
        return _dot_int4k(False, matrix, row, arguments, ahead)
    return _dot_int6k(False, matrix, row, arguments, ahead)


@device
def kquant_dot_non_temporal(matrix: int, row: int, arguments: int, ahead: int) -> float:
    """`kquant_dot` for rows that follow each other: prefetches are non-temporal."""
    if load_i64(matrix + DTYPE) == INT4K:
        return _dot_int4k(True, matrix, row, arguments, ahead)
    return _dot_int6k(True, matrix, row, arguments, ahead)


@inlined
def _dot_int4k(non_temporal: bool, matrix: int, row: int, arguments: int, ahead: int) -> float:
    size, result = load_i64(matrix + PADDED), splat(0.0)
    x, about = load_i64(arguments + DOT.digits), load_i64(arguments + DOT.scales)
    scales = row + size // 2
    for _ in range(size // 512):
        prefetch_lines(non_temporal, ahead, ahead + FOURS + FOUR_SCALES)
        result = add_int4k(row, scales, True, x, about, result)
        row, scales, x, about = row + FOURS, scales + FOUR_SCALES, x + X_DIGITS, about + X_FLOATS
        ahead += FOURS + FOUR_SCALES
    if size % 512 != 0:
        prefetch_lines(non_temporal, ahead, ahead + FOURS // 2 + FOUR_SCALES // 2)
        result = add_int4k(row, scales, False, x, about, result)
    return total(result)


@inlined
def _dot_int6k(non_temporal: bool, matrix: int, row: int, arguments: int, ahead: int) -> float:
    size, result = load_i64(matrix + PADDED), splat(0.0)
    x, about = load_i64(arguments + DOT.digits), load_i64(arguments + DOT.scales)
    scales = row + size // 4 * 3
    for _ in range(size // 512):
        prefetch_lines(non_temporal, ahead, ahead + SIXES + SIX_SCALES)
        result = add_int6k(row, scales, True, x, about, result)
        row, scales, x, about = row + SIXES, scales + SIX_SCALES, x + X_DIGITS, about + X_FLOATS
        ahead += SIXES + SIX_SCALES
    if size % 512 != 0:
        prefetch_lines(non_temporal, ahead, ahead + SIXES // 2 + SIX_SCALES // 2)
        result = add_int6k(row, scales, False, x, about, result)
    return total(result)
