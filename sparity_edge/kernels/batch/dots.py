"""The products of one row of an output-major matrix with two tokens.

The arithmetic of each sum is that of `dots`, step by step, so that its bits are the same; weights
are loaded and taken apart once for both tokens. Superblocks are in `batch_superblocks`.
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
from sparity_edge.kernels.decode.dot_tails import int4_rest, int8_rest
from sparity_edge.kernels.decode.dots import add_groups, ask_behind, ask_front, row_dot
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
    """The products of a row with two tokens.

    Args:
        mine, yours: as `product_of` gives them, which differ in their activations.
        row, gap, scratch: as for `row_dot`.
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
    ask_front(False, mine, row + gap)
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
        ask_behind(False, mine, row + gap, INT8_BLOCK)
        a, c = int8_rest(mine, row, a, c, scratch)
        b, d = int8_rest(yours, row, b, d, scratch)
    return total(fma(splat(mine.zero), c, a)), total(fma(splat(mine.zero), d, b))


@inlined
def _int4(mine: Product, yours: Product, row: int, gap: int, scratch: int) -> TWO:
    x, x_scales, y, y_scales = mine.x, mine.x_scales, yours.x, yours.x_scales
    a, c, b, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, header = row + mine.numbers_at, row + mine.scales_at
    ask_front(False, mine, row + gap)
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
        ask_behind(False, mine, row + gap, INT4_BLOCK)
        a, c = int4_rest(mine, row, a, c, scratch)
        b, d = int4_rest(yours, row, b, d, scratch)
    return total(fma(splat(mine.zero), c, a)), total(fma(splat(mine.zero), d, b))
