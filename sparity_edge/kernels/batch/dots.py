"""Dot products of one row of an output-major matrix with two tokens.

The arithmetic of each sum is that of `decode.dots`, step by step, so that its bits are the same;
weights are loaded and unpacked once for both tokens. K-quants are in `batch.kquant_dots`.
"""

from __future__ import annotations

from sparity_edge.kernels.decode.dot_arguments import (
    BLOCK_GROUPS,
    INT4_BLOCK,
    INT8_BLOCK,
    X_BLOCK,
    Product,
    spread,
)
from sparity_edge.kernels.decode.dot_tails import int4_tail, int8_tail
from sparity_edge.kernels.decode.dots import add_groups, prefetch_front, prefetch_tail, row_dot
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import INT4, INT8
from sparity_edge.kernels.simd.block_dots import (
    int4_block_dot,
    int8_block_dot,
    load_int4_block_near,
    load_int8_block_near,
)
from sparity_edge.kernels.simd.vectors import fma, splat, total

TWO = tuple[float, float]


@device
def row_two_tokens(mine: Product, yours: Product, row: int, gap: int, scratch: int) -> TWO:
    """The dot products of a row with two tokens, float32.

    Args:
        mine, yours: as `product_of` gives them for one matrix and two argument blocks.
        row: the address of the row.
        gap: prefetch distance in bytes.
        scratch: 64 bytes.
    """
    if mine.dtype == INT8:
        return _int8(mine, yours, row, gap, scratch)
    if mine.dtype == INT4:
        return _int4(mine, yours, row, gap, scratch)
    first = row_dot(mine, row, gap, scratch)
    return first, row_dot(yours, row, gap, scratch)


@inlined
def _int8(mine: Product, yours: Product, row: int, gap: int, scratch: int) -> TWO:
    x, x_scales, y, y_scales = mine.x, mine.x_scales, yours.x, yours.x_scales
    a, c, b, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, header = row + mine.numbers_at, row + mine.scales_at
    prefetch_front(False, mine, row + gap)
    for index in range(0, mine.groups - BLOCK_GROUPS + 1, BLOCK_GROUPS):
        scales, block = (
            spread(mine.group, header, index, BLOCK_GROUPS),
            load_int8_block_near(p, p + gap),
        )
        products = int8_block_dot(block, x)
        a, c = add_groups(products, scales, scales, x_scales, mine.x_sums, a, c)
        products = int8_block_dot(block, y)
        b, d = add_groups(products, scales, scales, y_scales, mine.x_sums, b, d)
        p, x, y = p + INT8_BLOCK, x + X_BLOCK, y + X_BLOCK
        x_scales, y_scales = x_scales + 64, y_scales + 64
    if mine.groups % BLOCK_GROUPS != 0:
        prefetch_tail(False, mine, row + gap, INT8_BLOCK)
        a, c = int8_tail(mine, row, a, c, scratch)
        b, d = int8_tail(yours, row, b, d, scratch)
    return total(fma(splat(mine.zero), c, a)), total(fma(splat(mine.zero), d, b))


@inlined
def _int4(mine: Product, yours: Product, row: int, gap: int, scratch: int) -> TWO:
    x, x_scales, y, y_scales = mine.x, mine.x_scales, yours.x, yours.x_scales
    a, c, b, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, header = row + mine.numbers_at, row + mine.scales_at
    prefetch_front(False, mine, row + gap)
    for index in range(0, mine.groups - BLOCK_GROUPS + 1, BLOCK_GROUPS):
        scales = spread(mine.group, header, index, BLOCK_GROUPS)
        offsets = spread(mine.group, header + mine.minima_at, index, BLOCK_GROUPS)
        block = load_int4_block_near(p, p + gap)
        products = int4_block_dot(block, x)
        a, c = add_groups(products, scales, offsets, x_scales, mine.x_sums, a, c)
        products = int4_block_dot(block, y)
        b, d = add_groups(products, scales, offsets, y_scales, mine.x_sums, b, d)
        p, x, y = p + INT4_BLOCK, x + X_BLOCK, y + X_BLOCK
        x_scales, y_scales = x_scales + 64, y_scales + 64
    if mine.groups % BLOCK_GROUPS != 0:
        prefetch_tail(False, mine, row + gap, INT4_BLOCK)
        a, c = int4_tail(mine, row, a, c, scratch)
        b, d = int4_tail(yours, row, b, d, scratch)
    return total(fma(splat(mine.zero), c, a)), total(fma(splat(mine.zero), d, b))
