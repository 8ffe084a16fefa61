"""Rows of five bits (int5, int5k) times a few tokens: what they add to the loops of `few`."""

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
from sparity_edge.kernels.batch.register_tiles import SCALES, W_ROW, groups_by
from sparity_edge.kernels.decode.dot_arguments import BLOCK_GROUPS, DOT, product_of
from sparity_edge.kernels.decode.vmm import put
from sparity_edge.kernels.kept.fives_dots import FIVES, scales_at, scales_of, zero_of
from sparity_edge.kernels.kept.fives_registers import store_fives
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import DTYPE, INT5K
from sparity_edge.kernels.simd.memory import load, load_i64, store
from sparity_edge.kernels.simd.vectors import fma, splat, total

_four, _two, _one = groups_by


@device
def fives_rows(tokens: Tokens, first: int, last: int, scratch: int) -> None:
    """Outputs first..last-1 of a matrix in int5 or int5k."""
    matrix = load_i64(tokens[0] + DOT.matrix)
    product = product_of(matrix, tokens[0])
    blocks = (product.groups + BLOCK_GROUPS - 1) // BLOCK_GROUPS
    if load_i64(matrix + DTYPE) == INT5K:
        few = few_of(tokens, 0, scales_at(True, product, 0), blocks, 64)
        _int5k_rows(few, first, last, scratch)
    else:
        few = few_of(tokens, 0, scales_at(False, product, 0), blocks, 64)
        _int5_rows(few, first, last, scratch)


@inlined
def _unpack(k_quant: bool, few: Few, row: int, block: int, to: int, scales: int) -> None:
    """A block of a row and its scales as tiles read them; the last one may have fewer groups."""
    index, product = BLOCK_GROUPS * block, product_of(few.matrix, few.each)
    left = few.groups - index
    if left >= BLOCK_GROUPS:
        store_fives(row + FIVES * block, 64, to)
        of, offsets = scales_of(k_quant, product, row + few.scales_at, index, BLOCK_GROUPS)
    else:
        store_fives(row + FIVES * block, 4 * left, to)
        of, offsets = scales_of(k_quant, product, row + few.scales_at, index, left)
    store(scales, of)
    store(scales + 64, offsets)


@inlined
def _add(
    k_quant: bool, few: Few, row: int, other: int, block: int, scratch: int, totals: int
) -> None:
    w, s = scratch + WEIGHTS_AT, scratch + ROW_SCALES_AT
    _unpack(k_quant, few, row, block, w, s)
    _unpack(k_quant, few, other, block, w + W_ROW, s + SCALES)
    multiply_block(_four, _two, _one, few, block, few.vectors, scratch, totals)


@inlined
def _finish(k_quant: bool, few: Few, totals: int, own: int, output: int) -> None:
    zero = zero_of(k_quant, product_of(few.matrix, own))
    put(own, output, total(fma(splat(zero), load(totals + 64), load(totals))))


@inlined
def _add_int5(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    _add(False, few, row, other, block, scratch, totals)


@inlined
def _add_int5k(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    _add(True, few, row, other, block, scratch, totals)


@inlined
def _finish_int5(few: Few, totals: int, row: int, own: int, output: int, scratch: int) -> None:  # noqa: ARG001
    _finish(False, few, totals, own, output)


@inlined
def _finish_int5k(few: Few, totals: int, row: int, own: int, output: int, scratch: int) -> None:  # noqa: ARG001
    _finish(True, few, totals, own, output)


@device
def _int5_rows(few: Few, first: int, last: int, scratch: int) -> None:
    grouped_rows(_add_int5, _finish_int5, few, first, last, scratch)


@device
def _int5k_rows(few: Few, first: int, last: int, scratch: int) -> None:
    grouped_rows(_add_int5k, _finish_int5k, few, first, last, scratch)
