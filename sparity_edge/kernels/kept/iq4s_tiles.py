"""Rows of iq4 and iq4k times a few tokens: what they add to the loops of `few`."""

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
from sparity_edge.kernels.decode.dot_arguments import BLOCK_GROUPS, DOT, INT4_BLOCK, product_of
from sparity_edge.kernels.decode.vmm import put
from sparity_edge.kernels.kept.iq4s_dots import scales_at, scales_of
from sparity_edge.kernels.kept.iq4s_registers import OFFSET, store_iq4
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import DTYPE, IQ4K
from sparity_edge.kernels.simd.memory import load, load_i64, store
from sparity_edge.kernels.simd.vectors import fma, splat, total

_four, _two, _one = groups_by


@device
def iq4s_rows(tokens: Tokens, first: int, last: int, scratch: int) -> None:
    """Outputs first..last-1 of a matrix in iq4 or iq4k."""
    matrix = load_i64(tokens[0] + DOT.matrix)
    product = product_of(matrix, tokens[0])
    blocks = (product.groups + BLOCK_GROUPS - 1) // BLOCK_GROUPS
    if load_i64(matrix + DTYPE) == IQ4K:
        few = few_of(tokens, 0, scales_at(True, product, 0), blocks, 64)
        _iq4k_rows(few, first, last, scratch)
    else:
        few = few_of(tokens, 0, scales_at(False, product, 0), blocks, 64)
        _iq4_rows(few, first, last, scratch)


@inlined
def _unpack(k_quant: bool, few: Few, row: int, block: int, to: int, scales: int) -> None:
    """A block of a row and its scales as tiles read them; the last one may have fewer groups."""
    index = BLOCK_GROUPS * block
    left = few.groups - index
    if left >= BLOCK_GROUPS:
        store_iq4(row + INT4_BLOCK * block, 64, to)
        of = scales_of(k_quant, row + few.scales_at, index, BLOCK_GROUPS)
    else:
        store_iq4(row + INT4_BLOCK * block, 4 * left, to)
        of = scales_of(k_quant, row + few.scales_at, index, left)
    store(scales, of)
    store(scales + 64, of)


@inlined
def _add(
    k_quant: bool, few: Few, row: int, other: int, block: int, scratch: int, totals: int
) -> None:
    w, s = scratch + WEIGHTS_AT, scratch + ROW_SCALES_AT
    _unpack(k_quant, few, row, block, w, s)
    _unpack(k_quant, few, other, block, w + W_ROW, s + SCALES)
    multiply_block(_four, _two, _one, few, block, few.vectors, scratch, totals)


@inlined
def _add_iq4(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    _add(False, few, row, other, block, scratch, totals)


@inlined
def _add_iq4k(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    _add(True, few, row, other, block, scratch, totals)


@inlined
def _finish(few: Few, totals: int, row: int, own: int, output: int, scratch: int) -> None:  # noqa: ARG001
    put(own, output, total(fma(splat(-float(OFFSET)), load(totals + 64), load(totals))))


@device
def _iq4_rows(few: Few, first: int, last: int, scratch: int) -> None:
    grouped_rows(_add_iq4, _finish, few, first, last, scratch)


@device
def _iq4k_rows(few: Few, first: int, last: int, scratch: int) -> None:
    grouped_rows(_add_iq4k, _finish, few, first, last, scratch)
