"""Dot products of rows of five bits (int5, int5k) with one token, and with two.

A row is its numbers, block after block, then its scales. int5 has a float16 for each group of 32,
and minima behind them; int5k has the scales of int4k. What a row ends with is a block of fewer
groups: lanes beyond them meet digits and scales of activations that are zero.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.decode.dot_arguments import (
    BLOCK_GROUPS,
    X_BLOCK,
    Product,
    prefetch_lines,
)
from sparity_edge.kernels.decode.dots import add_groups
from sparity_edge.kernels.decode.kquant_dots import FOUR_SCALES, int4k_scales
from sparity_edge.kernels.kept.fives_registers import (
    fives_block_dot,
    load_fives,
    load_fives_near,
    load_last_fives,
    load_narrow_fives,
    narrow_fives_dot,
)
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import INT5K, ROW_END
from sparity_edge.kernels.simd.conversions import load_f16
from sparity_edge.kernels.simd.memory import load_i64
from sparity_edge.kernels.simd.vectors import fma, splat, total

FIVES, FIVES_OF_GROUP = 320, 20  # bytes of a block, and of what a group adds to it
TWO = tuple[float, float]


@inlined
def scales_at(k_quant: bool, product: Product, row: int) -> int:
    """The address of the scales of a row."""
    return row + FIVES_OF_GROUP * product.groups if k_quant else row + product.scales_at


@inlined
def scales_of(
    k_quant: bool, product: Product, scales: int, index: int, left: int
) -> tuple[Any, Any]:
    """Scales of groups index..index+left-1, one to a lane, and what is taken off or added.

    `left` is a constant in loops over whole blocks: masks and branches would stay there.
    """
    if k_quant:
        place = scales + index // BLOCK_GROUPS * FOUR_SCALES
        return int4k_scales(place, left == BLOCK_GROUPS)
    place = scales + 2 * index
    return load_f16(place, left), load_f16(place + product.minima_at, left)


@inlined
def zero_of(k_quant: bool, product: Product) -> float:
    """What offsets times sums of activations count for: minima of int5k are taken off."""
    return -1.0 if k_quant else product.zero


@inlined
def _last_dot(numbers: int, groups: int, x: int) -> Any:
    """Sums of products of the block at the end of a row."""
    if groups <= BLOCK_GROUPS // 2:
        return narrow_fives_dot(load_narrow_fives(numbers, 4 * groups), x)
    return fives_block_dot(load_last_fives(numbers, 4 * groups), x)


@inlined
def _dot(k_quant: bool, product: Product, row: int, gap: int) -> float:
    a, c, p, scales = splat(0.0), splat(0.0), row, scales_at(k_quant, product, row)
    x, x_scales, x_sums, groups = product.x, product.x_scales, product.x_sums, product.groups
    for index in range(0, groups - BLOCK_GROUPS + 1, BLOCK_GROUPS):
        of, offsets = scales_of(k_quant, product, scales, index, BLOCK_GROUPS)
        products = fives_block_dot(load_fives(p, p + gap), x)
        a, c = add_groups(products, of, offsets, x_scales, x_sums, a, c)
        p, x, x_scales = p + FIVES, x + X_BLOCK, x_scales + 64
    prefetch_lines(True, p + gap, row + gap + load_i64(product.matrix + ROW_END))
    if groups % BLOCK_GROUPS != 0:
        left = groups % BLOCK_GROUPS
        of, offsets = scales_of(k_quant, product, scales, groups - left, left)
        products = _last_dot(p, left, x)
        a, c = add_groups(products, of, offsets, x_scales, x_sums, a, c)
    return total(fma(splat(zero_of(k_quant, product)), c, a))


@inlined
def following_int5_dot(product: Product, row: int, gap: int, scratch: int) -> float:  # noqa: ARG001
    """`row_dot` of int5 for rows that follow each other: prefetches are non-temporal."""
    return _dot(False, product, row, gap)


@inlined
def following_int5k_dot(product: Product, row: int, gap: int, scratch: int) -> float:  # noqa: ARG001
    """`row_dot` of int5k for rows that follow each other: prefetches are non-temporal."""
    return _dot(True, product, row, gap)


@inlined
def _dots_of_two(k_quant: bool, mine: Product, yours: Product, row: int, gap: int) -> TWO:
    """Two dot products, each in the order of `_dot`; weights are unpacked once for both."""
    a, c, b, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    x, x_scales, y, y_scales = mine.x, mine.x_scales, yours.x, yours.x_scales
    p, scales, groups = row, scales_at(k_quant, mine, row), mine.groups
    for index in range(0, groups - BLOCK_GROUPS + 1, BLOCK_GROUPS):
        of, offsets = scales_of(k_quant, mine, scales, index, BLOCK_GROUPS)
        block = load_fives_near(p, p + gap)
        a, c = add_groups(fives_block_dot(block, x), of, offsets, x_scales, mine.x_sums, a, c)
        b, d = add_groups(fives_block_dot(block, y), of, offsets, y_scales, yours.x_sums, b, d)
        p, x, y = p + FIVES, x + X_BLOCK, y + X_BLOCK
        x_scales, y_scales = x_scales + 64, y_scales + 64
    prefetch_lines(False, p + gap, row + gap + load_i64(mine.matrix + ROW_END))
    if groups % BLOCK_GROUPS != 0:
        left = groups % BLOCK_GROUPS
        of, offsets = scales_of(k_quant, mine, scales, groups - left, left)
        a, c = add_groups(_last_dot(p, left, x), of, offsets, x_scales, mine.x_sums, a, c)
        b, d = add_groups(_last_dot(p, left, y), of, offsets, y_scales, yours.x_sums, b, d)
    zero = splat(zero_of(k_quant, mine))
    return total(fma(zero, c, a)), total(fma(zero, d, b))


@device
def fives_dots_of_two(mine: Product, yours: Product, row: int, gap: int, scratch: int) -> TWO:  # noqa: ARG001
    """`row_two_tokens` of five bits."""
    if mine.dtype == INT5K:
        return _dots_of_two(True, mine, yours, row, gap)
    return _dots_of_two(False, mine, yours, row, gap)
