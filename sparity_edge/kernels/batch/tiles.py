"""Rows of int8 and int4 times a few tokens, and which function takes the rows of which format."""

from __future__ import annotations

from sparity_edge.kernels.batch.few import (
    MOST_TOKENS,
    ROW_SCALES_AT,
    WEIGHTS_AT,
    Few,
    digits_of,
    grouped_rows,
    scales_of,
    sums_of,
)
from sparity_edge.kernels.batch.kquant_tiles import int4k_rows, int6k_rows
from sparity_edge.kernels.batch.register_tiles import (
    SCALES,
    TOTAL,
    VECTORS,
    W_ROW,
    W_VECTOR,
    blocks_by_four,
    blocks_by_one,
    blocks_by_two,
    store_weights,
)
from sparity_edge.kernels.decode.dot_arguments import (
    BLOCK_GROUPS,
    DOT,
    INT4_BLOCK,
    INT8_BLOCK,
    X_BLOCK,
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
    INT4,
    INT4K,
    INT8,
    MINIMUM,
    PADDED,
    ROW_BYTES,
    SCALES_AT,
)
from sparity_edge.kernels.simd.byte_dots import high_nibbles, load_offset_bytes, low_nibbles
from sparity_edge.kernels.simd.memory import load, load_bytes, load_i64, store
from sparity_edge.kernels.simd.vectors import fma, splat, total


@device
def rows_times_tokens(
    each: int, each_bytes: int, tokens: int, first: int, last: int, scratch: int
) -> None:
    """Outputs first..last-1 of all tokens, MOST_TOKENS at a time.

    Args:
        each: the argument block of the first token.
        each_bytes: from one argument block to the next.
        tokens: how many there are.
        first, last: rows of the matrix.
        scratch: SCRATCH_BYTES.
    """
    matrix = load_i64(each + DOT.matrix)
    dtype, padded = load_i64(matrix + DTYPE), load_i64(matrix + PADDED)
    row_bytes, vectors = load_i64(matrix + ROW_BYTES), VECTORS if padded > 0 else 0
    half, scales_at = False, load_i64(matrix + SCALES_AT)
    minima = 2 * load_i64(matrix + GROUPS) if load_i64(matrix + MINIMUM) != 0 else 0
    if dtype == INT4K:
        half, scales_at = padded % 512 != 0, padded // 2
    elif dtype > INT4K:
        half, scales_at = padded % 512 != 0, padded // 4 * 3
    for token in range(0, tokens, MOST_TOKENS):
        few = Few(
            each + token * each_bytes, each_bytes, min(MOST_TOKENS, tokens - token), matrix,
            row_bytes, row_bytes // max(1, padded // 512), padded // 512, half, vectors,
            load_i64(matrix + HEADER_BYTES), scales_at, minima, load_i64(matrix + GROUP),
        )  # fmt: skip
        if dtype == INT8:
            _int8_rows(few, first, last, scratch)
        elif dtype == INT4:
            _int4_rows(few, first, last, scratch)
        elif dtype == INT4K:
            int4k_rows(few, first, last, scratch)
        else:
            int6k_rows(few, first, last, scratch)


# --- int8 and int4 ----------------------------------------------------------------------------


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
    header = row + few.scales_at
    scales = spread(few.group, header, block * BLOCK_GROUPS, BLOCK_GROUPS)
    store(to, scales)
    if few.minima_at != 0:
        header += few.minima_at
        scales = spread(few.group, header, block * BLOCK_GROUPS, BLOCK_GROUPS)
    store(to + 64, scales)


@inlined
def _add_block(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    """Add a block of two rows that has been unpacked."""
    w, s, n = scratch + WEIGHTS_AT, scratch + ROW_SCALES_AT, few.vectors
    _store_scales(few, row, block, s)
    _store_scales(few, other, block, s + SCALES)
    x, y, i = block * X_BLOCK, 64 * block, 0
    while i + 4 <= few.tokens:
        blocks_by_four(
            totals, w, n, s, digits_of(few, i, x), digits_of(few, i + 1, x),
            digits_of(few, i + 2, x), digits_of(few, i + 3, x), scales_of(few, i, y),
            scales_of(few, i + 1, y), scales_of(few, i + 2, y), scales_of(few, i + 3, y),
            sums_of(few, i, y), sums_of(few, i + 1, y), sums_of(few, i + 2, y),
            sums_of(few, i + 3, y),
        )  # fmt: skip
        i, totals = i + 4, totals + 4 * TOTAL
    if i + 2 <= few.tokens:
        blocks_by_two(
            totals, w, n, s, digits_of(few, i, x), digits_of(few, i + 1, x), scales_of(few, i, y),
            scales_of(few, i + 1, y), sums_of(few, i, y), sums_of(few, i + 1, y),
        )  # fmt: skip
        i, totals = i + 2, totals + 2 * TOTAL
    if i < few.tokens:
        x, y, sums = digits_of(few, i, x), scales_of(few, i, y), sums_of(few, i, y)
        blocks_by_one(totals, w, n, s, x, y, sums)


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
def _finish_int8(totals: int, row: int, own: int, output: int, scratch: int) -> None:
    product = product_of(load_i64(own + DOT.matrix), own)
    a, c = load(totals), load(totals + 64)
    if product.groups % BLOCK_GROUPS != 0:
        a, c = int8_tail(product, row, a, c, scratch)
    put(own, output, total(fma(splat(product.zero), c, a)))


@inlined
def _finish_int4(totals: int, row: int, own: int, output: int, scratch: int) -> None:
    product = product_of(load_i64(own + DOT.matrix), own)
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
