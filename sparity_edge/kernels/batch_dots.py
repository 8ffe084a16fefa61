"""The products of one row of an output-major matrix with two tokens.

The arithmetic of each sum is that of `dots`, step by step, so that its bits are the same; weights
are loaded and taken apart once for both tokens. Superblocks are in `batch_superblocks`.
"""

from __future__ import annotations

from sparity_edge.kernels.dots import (
    BLOCK_GROUPS,
    INT4_BLOCK,
    INT8_BLOCK,
    X_BLOCK,
    Product,
    add_groups,
    ask_behind,
    ask_front,
    int4_rest,
    int8_rest,
    row_dot,
    spread,
)
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.lanes import (
    int4_block_dot,
    int8_block_dot,
    load_int4_block,
    load_int8_block,
)
from sparity_edge.kernels.matrix import INT4, INT8
from sparity_edge.kernels.simd import fma, splat, total

TWO = tuple[float, float]


@device
def row_two_tokens(mine: Product, yours: Product, row: int, gap: int, scratch: int) -> TWO:
    """The products of a row with two tokens.

    Args:
        mine, yours: as `product_of` gives them, which differ in their activations.
        row, gap, scratch: as for `row_dot`.
    """
    if mine[0] == INT8:
        return _int8(mine, yours, row, gap, scratch)
    if mine[0] == INT4:
        return _int4(mine, yours, row, gap, scratch)
    first = row_dot(mine, row, gap, scratch)
    return first, row_dot(yours, row, gap, scratch)


@inlined
def _int8(mine: Product, yours: Product, row: int, gap: int, scratch: int) -> TWO:
    _, _, _, group, groups, scales_at, _, numbers_at, x, x_scales, x_sums, zero = mine
    y, y_scales = yours[8], yours[9]
    a, c, b, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, header = row + numbers_at, row + scales_at
    ask_front(mine, row + gap)
    for index in range(0, groups - BLOCK_GROUPS + 1, BLOCK_GROUPS):
        scales, block = spread(group, header, index, BLOCK_GROUPS), load_int8_block(p, p + gap)
        products = int8_block_dot(block, x)
        a, c = add_groups(products, scales, scales, x_scales, x_sums, a, c)
        products = int8_block_dot(block, y)
        b, d = add_groups(products, scales, scales, y_scales, x_sums, b, d)
        p, x, y = p + INT8_BLOCK, x + X_BLOCK, y + X_BLOCK
        x_scales, y_scales = x_scales + 64, y_scales + 64
    if groups % BLOCK_GROUPS != 0:
        ask_behind(mine, row + gap, INT8_BLOCK)
        a, c = int8_rest(mine, row, a, c, scratch)
        b, d = int8_rest(yours, row, b, d, scratch)
    return total(fma(splat(zero), c, a)), total(fma(splat(zero), d, b))


@inlined
def _int4(mine: Product, yours: Product, row: int, gap: int, scratch: int) -> TWO:
    _, _, _, group, groups, scales_at, minima, numbers_at, x, x_scales, x_sums, zero = mine
    y, y_scales = yours[8], yours[9]
    a, c, b, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, header = row + numbers_at, row + scales_at
    ask_front(mine, row + gap)
    for index in range(0, groups - BLOCK_GROUPS + 1, BLOCK_GROUPS):
        scales = spread(group, header, index, BLOCK_GROUPS)
        offsets = spread(group, header + minima, index, BLOCK_GROUPS)
        block = load_int4_block(p, p + gap)
        products = int4_block_dot(block, x)
        a, c = add_groups(products, scales, offsets, x_scales, x_sums, a, c)
        products = int4_block_dot(block, y)
        b, d = add_groups(products, scales, offsets, y_scales, x_sums, b, d)
        p, x, y = p + INT4_BLOCK, x + X_BLOCK, y + X_BLOCK
        x_scales, y_scales = x_scales + 64, y_scales + 64
    if groups % BLOCK_GROUPS != 0:
        ask_behind(mine, row + gap, INT4_BLOCK)
        a, c = int4_rest(mine, row, a, c, scratch)
        b, d = int4_rest(yours, row, b, d, scratch)
    return total(fma(splat(zero), c, a)), total(fma(splat(zero), d, b))
