"""Rows of int2k and int3k times a few tokens: what they add to the loops of `few`.

Half a block at the end of a row is multiplied with each token alone, as `lows_dots` does it.
"""

from __future__ import annotations

from sparity_edge.kernels.batch.few import (
    ROW_SCALES_AT,
    WEIGHTS_AT,
    Few,
    Tokens,
    few_of,
    grouped_rows,
    multiply_block,
)
from sparity_edge.kernels.batch.register_tiles import SCALES, W_ROW, threes_by, twos_by
from sparity_edge.kernels.decode.dot_arguments import DOT
from sparity_edge.kernels.decode.kquant_dots import X_DIGITS, X_FLOATS
from sparity_edge.kernels.decode.vmm import put
from sparity_edge.kernels.kept.lows_dots import (
    THREE_SCALES,
    THREES,
    TWO_SCALES,
    TWOS,
    add_threes,
    add_twos,
    scales_at,
    three_factors,
    three_scales,
    two_factors,
)
from sparity_edge.kernels.kept.lows_registers import store_threes, store_twos
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import DTYPE, INT3K, PADDED
from sparity_edge.kernels.simd.conversions import load_high, load_low
from sparity_edge.kernels.simd.memory import load, load_i64, store
from sparity_edge.kernels.simd.vectors import mul, splat, total

_four_twos, _two_twos, _one_twos = twos_by
_four_threes, _two_threes, _one_threes = threes_by


@device
def lows_rows(tokens: Tokens, first: int, last: int, scratch: int) -> None:
    """Outputs first..last-1 of a matrix in int2k or int3k."""
    matrix = load_i64(tokens[0] + DOT.matrix)
    size = load_i64(matrix + PADDED)
    if load_i64(matrix + DTYPE) == INT3K:
        few = few_of(tokens, 0, scales_at(THREES, size), size // 512, X_FLOATS)
        _int3k_rows(few, first, last, scratch)
    else:
        few = few_of(tokens, 0, scales_at(TWOS, size), size // 512, X_FLOATS)
        _int2k_rows(few, first, last, scratch)


@inlined
def _half_left(few: Few) -> bool:
    return few.groups != 16 * few.blocks


# --- two bits ---------------------------------------------------------------------------------


@inlined
def _unpack_int2k(few: Few, row: int, block: int, to: int, scales: int) -> None:
    store_twos(row + TWOS * block, to)
    packed = row + few.scales_at + TWO_SCALES * block
    factor, least_factor = two_factors(packed, True)
    store(scales, factor)
    store(scales + 64, mul(least_factor, splat(0.03125)))
    for half in range(2):
        store(scales + 128 + 64 * half, load_low(packed + 16 * half))
        store(scales + 256 + 64 * half, load_high(packed + 16 * half))


@inlined
def _add_int2k(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    w, s, n = scratch + WEIGHTS_AT, scratch + ROW_SCALES_AT, few.vectors // 2
    _unpack_int2k(few, row, block, w, s)
    _unpack_int2k(few, other, block, w + W_ROW, s + SCALES)
    multiply_block(_four_twos, _two_twos, _one_twos, few, block, n, scratch, totals)


@inlined
def _finish_int2k(few: Few, totals: int, row: int, own: int, output: int, scratch: int) -> None:  # noqa: ARG001
    result, block = load(totals), few.blocks
    if _half_left(few):
        x = load_i64(own + DOT.digits) + X_DIGITS * block
        about = load_i64(own + DOT.scales) + X_FLOATS * block
        scales = row + few.scales_at + TWO_SCALES * block
        result = add_twos(row + TWOS * block, scales, False, x, about, result)
    put(own, output, total(result))


@device
def _int2k_rows(few: Few, first: int, last: int, scratch: int) -> None:
    grouped_rows(_add_int2k, _finish_int2k, few, first, last, scratch)


# --- three bits -------------------------------------------------------------------------------


@inlined
def _unpack_int3k(few: Few, row: int, block: int, to: int, scales: int) -> None:
    store_threes(row + THREES * block, to)
    packed = row + few.scales_at + THREE_SCALES * block
    first, second = three_scales(packed, True)
    store(scales, three_factors(packed, True))
    store(scales + 64, first)
    store(scales + 128, second)


@inlined
def _add_int3k(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    w, s, n = scratch + WEIGHTS_AT, scratch + ROW_SCALES_AT, few.vectors // 2
    _unpack_int3k(few, row, block, w, s)
    _unpack_int3k(few, other, block, w + W_ROW, s + SCALES)
    multiply_block(_four_threes, _two_threes, _one_threes, few, block, n, scratch, totals)


@inlined
def _finish_int3k(few: Few, totals: int, row: int, own: int, output: int, scratch: int) -> None:  # noqa: ARG001
    result, block = load(totals), few.blocks
    if _half_left(few):
        x = load_i64(own + DOT.digits) + X_DIGITS * block
        about = load_i64(own + DOT.scales) + X_FLOATS * block
        scales = row + few.scales_at + THREE_SCALES * block
        result = add_threes(row + THREES * block, scales, False, x, about, result)
    put(own, output, total(result))


@device
def _int3k_rows(few: Few, first: int, last: int, scratch: int) -> None:
    grouped_rows(_add_int3k, _finish_int3k, few, first, last, scratch)
