"""Rows of int8 and int4 times a few tokens: what they add to the loops of `few`."""

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
from sparity_edge.kernels.batch.register_tiles import (
    SCALES,
    VECTORS,
    W_ROW,
    W_VECTOR,
    groups_by,
    store_weights,
)
from sparity_edge.kernels.decode.dot_arguments import (
    BLOCK_GROUPS,
    DOT,
    INT4_BLOCK,
    INT8_BLOCK,
    product_of,
    spread,
)
from sparity_edge.kernels.decode.dot_tails import int4_tail, int8_tail
from sparity_edge.kernels.decode.vmm import put
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import (
    DTYPE,
    GROUP,
    GROUPS,
    HEADER_BYTES,
    INT8,
    MINIMUM,
    PADDED,
    SCALES_AT,
)
from sparity_edge.kernels.simd.byte_dots import high_nibbles, load_offset_bytes, low_nibbles
from sparity_edge.kernels.simd.memory import load, load_bytes, load_i64, store
from sparity_edge.kernels.simd.vectors import fma, splat, total

_four, _two, _one = groups_by


@device
def integer_rows(tokens: Tokens, first: int, last: int, scratch: int) -> None:
    """Outputs first..last-1 of a matrix in int8 or int4."""
    matrix = load_i64(tokens[0] + DOT.matrix)
    numbers_at, scales_at = load_i64(matrix + HEADER_BYTES), load_i64(matrix + SCALES_AT)
    few = few_of(tokens, numbers_at, scales_at, load_i64(matrix + PADDED) // 512, 64)
    if load_i64(matrix + DTYPE) == INT8:
        _int8_rows(few, first, last, scratch)
    else:
        _int4_rows(few, first, last, scratch)


@inlined
def _widen_int8(numbers: int, to: int) -> None:
    for line in range(VECTORS):
        store_weights(to + line * W_VECTOR, load_offset_bytes(numbers + 64 * line))


@inlined
def _widen_int4(numbers: int, to: int) -> None:
    for line in range(VECTORS // 2):
        packed = load_bytes(numbers + 64 * line)
        store_weights(to + line * W_VECTOR, low_nibbles(packed))
        store_weights(to + (line + VECTORS // 2) * W_VECTOR, high_nibbles(packed))


@inlined
def _store_scales(few: Few, row: int, block: int, to: int) -> None:
    """Scales and minima (or scales again) of sixteen groups, one to a lane."""
    header, group = row + few.scales_at, load_i64(few.matrix + GROUP)
    scales = spread(group, header, block * BLOCK_GROUPS, BLOCK_GROUPS)
    store(to, scales)
    if load_i64(few.matrix + MINIMUM) != 0:
        header += 2 * load_i64(few.matrix + GROUPS)
        scales = spread(group, header, block * BLOCK_GROUPS, BLOCK_GROUPS)
    store(to + 64, scales)


@inlined
def _add_block(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    """Add a block of two rows that has been unpacked."""
    s = scratch + ROW_SCALES_AT
    _store_scales(few, row, block, s)
    _store_scales(few, other, block, s + SCALES)
    multiply_block(_four, _two, _one, few, block, few.vectors, scratch, totals)


@inlined
def _add_int8(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    w, at = scratch + WEIGHTS_AT, few.numbers_at + block * INT8_BLOCK
    _widen_int8(row + at, w)
    _widen_int8(other + at, w + W_ROW)
    _add_block(few, row, other, block, scratch, totals)


@inlined
def _add_int4(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    w, at = scratch + WEIGHTS_AT, few.numbers_at + block * INT4_BLOCK
    _widen_int4(row + at, w)
    _widen_int4(other + at, w + W_ROW)
    _add_block(few, row, other, block, scratch, totals)


@inlined
def _finish_int8(few: Few, totals: int, row: int, own: int, output: int, scratch: int) -> None:
    product = product_of(few.matrix, own)
    a, c = load(totals), load(totals + 64)
    if product.groups % BLOCK_GROUPS != 0:
        a, c = int8_tail(product, row, a, c, scratch)
    put(own, output, total(fma(splat(product.zero), c, a)))


@inlined
def _finish_int4(few: Few, totals: int, row: int, own: int, output: int, scratch: int) -> None:
    product = product_of(few.matrix, own)
    a, c = load(totals), load(totals + 64)
    if product.groups % BLOCK_GROUPS != 0:
        a, c = int4_tail(product, row, a, c, scratch)
    put(own, output, total(fma(splat(product.zero), c, a)))


@device
def _int8_rows(few: Few, first: int, last: int, scratch: int) -> None:
    grouped_rows(_add_int8, _finish_int8, few, first, last, scratch)


@device
def _int4_rows(few: Few, first: int, last: int, scratch: int) -> None:
    grouped_rows(_add_int4, _finish_int4, few, first, last, scratch)
