"""Rows of K-quants (int4k, int6k) times a few tokens: what they add to the loops of `few`."""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.batch.few import (
    ROW_SCALES_AT,
    WEIGHTS_AT,
    Few,
    Tokens,
    few_of,
    grouped_rows,
    multiply_block,
)
from sparity_edge.kernels.batch.kquant_dots import add_int4k_of_two, add_int6k_of_two
from sparity_edge.kernels.batch.register_tiles import (
    BOTH_HALVES,
    ROW_TOTALS,
    SCALES,
    TOTAL,
    VECTORS,
    W_ROW,
    W_VECTOR,
    fours_by,
    half_sixes_by,
    sixes_by,
    store_weights,
)
from sparity_edge.kernels.decode.dot_arguments import DOT
from sparity_edge.kernels.decode.kquant_dots import (
    FOUR_SCALES,
    FOURS,
    SIX_SCALES,
    SIXES,
    X_DIGITS,
    X_FLOATS,
    add_int4k,
    add_int6k,
    int4k_scales,
    int6k_factors,
)
from sparity_edge.kernels.decode.vmm import put
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import DTYPE, INT4K, PADDED
from sparity_edge.kernels.simd.byte_dots import high_nibbles, low_nibbles
from sparity_edge.kernels.simd.conversions import load_i8
from sparity_edge.kernels.simd.kquants import low_sixes, top_sixes
from sparity_edge.kernels.simd.memory import load, load_bytes, load_i64, store
from sparity_edge.kernels.simd.vectors import total

_four_fours, _two_fours, _one_fours = fours_by
_four_sixes, _two_sixes, _one_sixes = sixes_by
_four_halves, _two_halves, _one_halves = half_sixes_by


@device
def kquant_rows(tokens: Tokens, first: int, last: int, scratch: int) -> None:
    """Outputs first..last-1 of a matrix in int4k or int6k."""
    matrix = load_i64(tokens[0] + DOT.matrix)
    size = load_i64(matrix + PADDED)
    blocks = (size + 256) // 512
    if load_i64(matrix + DTYPE) == INT4K:
        _int4k_rows(few_of(tokens, 0, size // 2, blocks, X_FLOATS), first, last, scratch)
    else:
        _int6k_rows(few_of(tokens, 0, size // 4 * 3, blocks, X_FLOATS), first, last, scratch)


@inlined
def _finish(few: Few, totals: int, row: int, own: int, output: int, scratch: int) -> None:  # noqa: ARG001
    put(own, output, total(load(totals)))


@inlined
def _is_whole(few: Few, block: int) -> bool:
    return 16 * block + 16 <= few.groups


@inlined
def _add_pairs(
    of_one: Any, of_two: Any, width: int, behind: int, few: Few, row: int, other: int, block: int,
    totals: int,
) -> None:  # fmt: skip
    """Add a block of two rows times all tokens, two at a time, without a detour by L1."""
    whole, x, y = _is_whole(few, block), block * X_DIGITS, block * X_FLOATS
    scales = row + few.scales_at + block * behind
    to_other, own = other - row, few.each
    row += block * width
    for _ in range(0, few.tokens - 1, 2):
        his = own + few.each_bytes
        mine, about = load_i64(own + DOT.digits) + x, load_i64(own + DOT.scales) + y
        yours, about_yours = load_i64(his + DOT.digits) + x, load_i64(his + DOT.scales) + y
        a, b = load(totals), load(totals + ROW_TOTALS)
        c, d = load(totals + TOTAL), load(totals + ROW_TOTALS + TOTAL)
        if whole:
            a, b, c, d = of_two(
                row, row + to_other, scales, scales + to_other, True, mine, yours, about,
                about_yours, a, b, c, d,
            )  # fmt: skip
        else:
            a, b, c, d = of_two(
                row, row + to_other, scales, scales + to_other, False, mine, yours, about,
                about_yours, a, b, c, d,
            )  # fmt: skip
        store(totals, a)
        store(totals + ROW_TOTALS, b)
        store(totals + TOTAL, c)
        store(totals + ROW_TOTALS + TOTAL, d)
        own, totals = his + few.each_bytes, totals + 2 * TOTAL
    if few.tokens % 2 != 0:
        mine, about = load_i64(own + DOT.digits) + x, load_i64(own + DOT.scales) + y
        a, b = load(totals), load(totals + ROW_TOTALS)
        if whole:
            a = of_one(row, scales, True, mine, about, a)
            b = of_one(row + to_other, scales + to_other, True, mine, about, b)
        else:
            a = of_one(row, scales, False, mine, about, a)
            b = of_one(row + to_other, scales + to_other, False, mine, about, b)
        store(totals, a)
        store(totals + ROW_TOTALS, b)


# --- int4k ------------------------------------------------------------------------------------


@inlined
def _widen_fours(numbers: int, nbytes: int, to: int) -> None:
    for line in range(0, nbytes, 64):
        packed = load_bytes(numbers + line)
        place = to + line // 32 * W_VECTOR
        store_weights(place, low_nibbles(packed))
        store_weights(place + W_VECTOR, high_nibbles(packed))


@inlined
def _widen_int4k(few: Few, row: int, block: int, whole: bool, to: int, scales: int) -> None:
    """A block of a row (or half of one) and its scales as tiles read them."""
    _widen_fours(row + block * FOURS, FOURS if whole else FOURS // 2, to)
    scale, least = int4k_scales(row + few.scales_at + block * FOUR_SCALES, whole)
    store(scales, scale)
    store(scales + 64, least)


@inlined
def _add_int4k(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    if BOTH_HALVES:
        _add_pairs(add_int4k, add_int4k_of_two, FOURS, FOUR_SCALES, few, row, other, block, totals)
        return
    w, s, n = scratch + WEIGHTS_AT, scratch + ROW_SCALES_AT, few.vectors
    if _is_whole(few, block):
        _widen_int4k(few, row, block, True, w, s)
        _widen_int4k(few, other, block, True, w + W_ROW, s + SCALES)
    else:
        _widen_int4k(few, row, block, False, w, s)
        _widen_int4k(few, other, block, False, w + W_ROW, s + SCALES)
        n //= 2
    multiply_block(_four_fours, _two_fours, _one_fours, few, block, n, scratch, totals)


@device
def _int4k_rows(few: Few, first: int, last: int, scratch: int) -> None:
    grouped_rows(_add_int4k, _finish, few, first, last, scratch)


# --- int6k ------------------------------------------------------------------------------------


@inlined
def _widen_sixes(numbers: int, to: int) -> None:
    """Four vectors from three cache lines."""
    a, b, c = load_bytes(numbers), load_bytes(numbers + 64), load_bytes(numbers + 128)
    store_weights(to, low_sixes(a))
    store_weights(to + W_VECTOR, low_sixes(b))
    store_weights(to + 2 * W_VECTOR, low_sixes(c))
    store_weights(to + 3 * W_VECTOR, top_sixes(a, b, c))


@inlined
def _widen_int6k(few: Few, row: int, block: int, whole: bool, to: int, scales: int) -> None:
    """A block of a row (or half of one) and its scales as tiles read them."""
    _widen_sixes(row + block * SIXES, to)
    packed = row + few.scales_at + block * SIX_SCALES
    store(scales, int6k_factors(packed, whole))
    store(scales + 64, load_i8(packed))
    if whole:
        _widen_sixes(row + block * SIXES + SIXES // 2, to + VECTORS // 2 * W_VECTOR)
        store(scales + 128, load_i8(packed + 16))


@inlined
def _add_int6k(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    if BOTH_HALVES:
        _add_pairs(add_int6k, add_int6k_of_two, SIXES, SIX_SCALES, few, row, other, block, totals)
        return
    w, s, n = scratch + WEIGHTS_AT, scratch + ROW_SCALES_AT, few.vectors // 2
    if _is_whole(few, block):
        _widen_int6k(few, row, block, True, w, s)
        _widen_int6k(few, other, block, True, w + W_ROW, s + SCALES)
        multiply_block(_four_sixes, _two_sixes, _one_sixes, few, block, n, scratch, totals)
    else:
        _widen_int6k(few, row, block, False, w, s)
        _widen_int6k(few, other, block, False, w + W_ROW, s + SCALES)
        multiply_block(_four_halves, _two_halves, _one_halves, few, block, n, scratch, totals)


@device
def _int6k_rows(few: Few, first: int, last: int, scratch: int) -> None:
    grouped_rows(_add_int6k, _finish, few, first, last, scratch)
