"""Dot products of rows of iq4 and iq4k with one token, and with two.

A row is its numbers, block after block, then its scales: of iq4 a float16 for each group of 32, of
iq4k six bits, and a float16 for each 256 inputs. What a row ends with is a block of fewer groups:
lanes beyond them meet digits and scales of activations that are zero.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.decode.dot_arguments import (
    BLOCK_GROUPS,
    INT4_BLOCK,
    X_BLOCK,
    Product,
    prefetch_lines,
)
from sparity_edge.kernels.decode.dots import add_groups
from sparity_edge.kernels.kept.iq4s_registers import (
    OFFSET,
    iq4k_scales,
    last_iq4k_scales,
    load_iq4,
    load_iq4_near,
    load_last_iq4,
)
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import IQ4K, ROW_END
from sparity_edge.kernels.simd.block_dots import int8_block_dot
from sparity_edge.kernels.simd.conversions import load_f16
from sparity_edge.kernels.simd.memory import load_i64
from sparity_edge.kernels.simd.vectors import fma, splat, total

IQ4_GROUP, IQ4K_SCALES = 16, 16  # bytes of a group's numbers; of the scales of a block of iq4k
TWO = tuple[float, float]


@inlined
def scales_at(k_quant: bool, product: Product, row: int) -> int:
    """The address of the scales of a row."""
    return row + IQ4_GROUP * product.groups if k_quant else row + product.scales_at


@inlined
def scales_of(k_quant: bool, scales: int, index: int, left: int) -> Any:
    """Scales of groups index..index+15, one to a lane; the row has `left` of them."""
    if not k_quant:
        return load_f16(scales + 2 * index, left)
    place = scales + index // BLOCK_GROUPS * IQ4K_SCALES
    return iq4k_scales(place) if left >= BLOCK_GROUPS else last_iq4k_scales(place)


@inlined
def _dot(k_quant: bool, product: Product, row: int, gap: int) -> float:
    a, c, p, scales = splat(0.0), splat(0.0), row, scales_at(k_quant, product, row)
    x, x_scales, x_sums, groups = product.x, product.x_scales, product.x_sums, product.groups
    for index in range(0, groups - BLOCK_GROUPS + 1, BLOCK_GROUPS):
        of = scales_of(k_quant, scales, index, BLOCK_GROUPS)
        products = int8_block_dot(load_iq4(p, p + gap), x)
        a, c = add_groups(products, of, of, x_scales, x_sums, a, c)
        p, x, x_scales = p + INT4_BLOCK, x + X_BLOCK, x_scales + 64
    prefetch_lines(True, p + gap, row + gap + load_i64(product.matrix + ROW_END))
    left = groups % BLOCK_GROUPS
    if left != 0:
        of = scales_of(k_quant, scales, groups - left, left)
        block = load_last_iq4(p, left * 4)
        a, c = add_groups(int8_block_dot(block, x), of, of, x_scales, x_sums, a, c)
    return total(fma(splat(-float(OFFSET)), c, a))


@inlined
def following_iq4_dot(product: Product, row: int, gap: int, scratch: int) -> float:  # noqa: ARG001
    """`row_dot` of iq4 for rows that follow each other: prefetches are non-temporal."""
    return _dot(False, product, row, gap)


@inlined
def following_iq4k_dot(product: Product, row: int, gap: int, scratch: int) -> float:  # noqa: ARG001
    """`row_dot` of iq4k for rows that follow each other: prefetches are non-temporal."""
    return _dot(True, product, row, gap)


@inlined
def _dots_of_two(k_quant: bool, mine: Product, yours: Product, row: int, gap: int) -> TWO:
    """Two dot products, each in the order of `_dot`; weights are looked up once for both."""
    a, c, b, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    x, x_scales, y, y_scales = mine.x, mine.x_scales, yours.x, yours.x_scales
    p, scales, groups = row, scales_at(k_quant, mine, row), mine.groups
    for index in range(0, groups - BLOCK_GROUPS + 1, BLOCK_GROUPS):
        of = scales_of(k_quant, scales, index, BLOCK_GROUPS)
        block = load_iq4_near(p, p + gap)
        a, c = add_groups(int8_block_dot(block, x), of, of, x_scales, mine.x_sums, a, c)
        b, d = add_groups(int8_block_dot(block, y), of, of, y_scales, yours.x_sums, b, d)
        p, x, y = p + INT4_BLOCK, x + X_BLOCK, y + X_BLOCK
        x_scales, y_scales = x_scales + 64, y_scales + 64
    prefetch_lines(False, p + gap, row + gap + load_i64(mine.matrix + ROW_END))
    left = groups % BLOCK_GROUPS
    if left != 0:
        of = scales_of(k_quant, scales, groups - left, left)
        block = load_last_iq4(p, left * 4)
        a, c = add_groups(int8_block_dot(block, x), of, of, x_scales, mine.x_sums, a, c)
        b, d = add_groups(int8_block_dot(block, y), of, of, y_scales, yours.x_sums, b, d)
    zero = splat(-float(OFFSET))
    return total(fma(zero, c, a)), total(fma(zero, d, b))


@device
def iq4s_dots_of_two(mine: Product, yours: Product, row: int, gap: int, scratch: int) -> TWO:  # noqa: ARG001
    """`row_two_tokens` of iq4 and iq4k."""
    if mine.dtype == IQ4K:
        return _dots_of_two(True, mine, yours, row, gap)
    return _dots_of_two(False, mine, yours, row, gap)
