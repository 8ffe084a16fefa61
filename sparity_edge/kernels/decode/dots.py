"""The dot product of one row of an output-major matrix with the activations, for `vmm` and gathers.

Going through its row, a function prefetches the memory that the caller needs next, as many bytes as
the row has: further on in a dense matrix, or the next row that is wanted. Rows of int8 and int4 go
by blocks (`block_dots`), one after the other. Two or four rows side by side share the activations
that were loaded, but a core then reads several streams at once: 0.82 to 0.95 of the memory's speed
where one row gives 0.98 (AMD EPYC, two threads, 48 GB/s, rows of 2 and 4 KB; bench/kernels.py).
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.decode.dot_arguments import (
    BLOCK_GROUPS,
    DOT,
    INT4_BLOCK,
    INT8_BLOCK,
    X_BLOCK,
    Product,
    prefetch_lines,
    spread,
)
from sparity_edge.kernels.decode.dot_tails import int4_tail, int8_tail
from sparity_edge.kernels.decode.kquant_dots import kquant_dot, kquant_dot_non_temporal
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import BF16, INT4, INT4K, INT8, PADDED, ROW_END
from sparity_edge.kernels.simd.block_dots import (
    int4_block_dot,
    int8_block_dot,
    load_int4_block,
    load_int4_block_near,
    load_int8_block,
    load_int8_block_near,
)
from sparity_edge.kernels.simd.conversions import load_bf16
from sparity_edge.kernels.simd.memory import load, load_i64
from sparity_edge.kernels.simd.vectors import add, fma, mul, splat, total


@device
def row_dot(product: Product, row: int, gap: int, scratch: int) -> float:
    """The dot product of a row, float32.

    Args:
        product: as `product_of` gives it.
        row: the address of the row.
        gap: prefetch distance in bytes: as many bytes as the row has are prefetched from there on.
        scratch: 64 bytes.
    """
    if product.dtype == INT4:
        return _int4(False, product, row, gap, scratch)
    if product.dtype == INT8:
        return _int8(False, product, row, gap, scratch)
    if product.dtype >= INT4K:
        return kquant_dot(product.matrix, row, product.arguments, row + gap)
    return _floats(False, product, row, gap)


@inlined
def _floats(non_temporal: bool, product: Product, row: int, gap: int) -> float:
    a, b = splat(0.0), splat(0.0)
    size, x = load_i64(product.matrix + PADDED), load_i64(product.arguments + DOT.x)
    if product.dtype == BF16:
        for _ in range(0, size, 32):
            prefetch_lines(non_temporal, row + gap, row + gap + 64)
            a = fma(load_bf16(row), load(x), a)
            b = fma(load_bf16(row + 32), load(x + 64), b)
            row, x = row + 64, x + 128
        return total(add(a, b))
    for _ in range(0, size - 16, 32):
        prefetch_lines(non_temporal, row + gap, row + gap + 128)
        a = fma(load(row), load(x), a)
        b = fma(load(row + 64), load(x + 64), b)
        row, x = row + 128, x + 128
    if size % 32 != 0:
        prefetch_lines(non_temporal, row + gap, row + gap + 64)
        a = fma(load(row), load(x), a)
    return total(add(a, b))


@inlined
def add_groups(
    products: Any, scales: Any, offsets: Any, x_scales: int, x_sums: int, a: Any, c: Any
) -> tuple[Any, Any]:
    """Add 16 groups, one to a lane, to the sums a of products and c of activations.

    Args:
        products: sums of integers, as float32.
        scales: of the weights.
        offsets: their minima, or the scales again.
        x_scales: the address of the scales of the activations.
        x_sums: bytes from there to their sums.
        a, c: vectors of sums so far.

    Returns:
        The new a and c.
    """
    of_x = load(x_scales)
    c = fma(mul(offsets, of_x), load(x_scales + x_sums), c)
    return fma(mul(scales, of_x), products, a), c


@inlined
def _int8_blocks(
    non_temporal: bool, group: int, product: Product, row: int, gap: int
) -> tuple[Any, Any]:
    """The sums of products and of activations over the blocks of a row."""
    a, c, header, p = splat(0.0), splat(0.0), row + product.scales_at, row + product.numbers_at
    x, x_scales, x_sums = product.x, product.x_scales, product.x_sums
    for index in range(0, product.groups - BLOCK_GROUPS + 1, BLOCK_GROUPS):
        scales = spread(group, header, index, BLOCK_GROUPS)
        block = load_int8_block(p, p + gap) if non_temporal else load_int8_block_near(p, p + gap)
        products = int8_block_dot(block, x)
        a, c = add_groups(products, scales, scales, x_scales, x_sums, a, c)
        p, x, x_scales = p + INT8_BLOCK, x + X_BLOCK, x_scales + 64
    return a, c


@inlined
def _int4_blocks(
    non_temporal: bool, group: int, product: Product, row: int, gap: int
) -> tuple[Any, Any]:
    a, c, header, minima = splat(0.0), splat(0.0), row + product.scales_at, product.minima_at
    p, x, x_scales, x_sums = row + product.numbers_at, product.x, product.x_scales, product.x_sums
    for index in range(0, product.groups - BLOCK_GROUPS + 1, BLOCK_GROUPS):
        scales = spread(group, header, index, BLOCK_GROUPS)
        offsets = spread(group, header + minima, index, BLOCK_GROUPS)
        block = load_int4_block(p, p + gap) if non_temporal else load_int4_block_near(p, p + gap)
        products = int4_block_dot(block, x)
        a, c = add_groups(products, scales, offsets, x_scales, x_sums, a, c)
        p, x, x_scales = p + INT4_BLOCK, x + X_BLOCK, x_scales + 64
    return a, c


@device
def _int8_wide(product: Product, row: int, gap: int) -> tuple[Any, Any]:
    return _int8_blocks(False, product.group, product, row, gap)


@device
def _int4_wide(product: Product, row: int, gap: int) -> tuple[Any, Any]:
    return _int4_blocks(False, product.group, product, row, gap)


@inlined
def prefetch_front(non_temporal: bool, product: Product, row: int) -> None:
    """Prefetch what stands in front of the numbers of a row."""
    prefetch_lines(non_temporal, row, row + product.numbers_at)


@inlined
def prefetch_tail(non_temporal: bool, product: Product, row: int, block: int) -> None:
    """Prefetch the tail of a row, whose blocks have `block` bytes each."""
    first = row + product.numbers_at + product.groups // BLOCK_GROUPS * block
    prefetch_lines(non_temporal, first, row + load_i64(product.matrix + ROW_END))


@inlined
def _int8(non_temporal: bool, product: Product, row: int, gap: int, scratch: int) -> float:
    """Groups of 32 inputs have a loop of their own: registers are scarce."""
    prefetch_front(non_temporal, product, row + gap)
    if product.group == 32:
        a, c = _int8_blocks(non_temporal, 32, product, row, gap)
    else:
        a, c = _int8_wide(product, row, gap)
    if product.groups % BLOCK_GROUPS != 0:
        prefetch_tail(non_temporal, product, row + gap, INT8_BLOCK)
        a, c = int8_tail(product, row, a, c, scratch)
    return total(fma(splat(product.zero), c, a))


@inlined
def _int4(non_temporal: bool, product: Product, row: int, gap: int, scratch: int) -> float:
    prefetch_front(non_temporal, product, row + gap)
    if product.group == 32:
        a, c = _int4_blocks(non_temporal, 32, product, row, gap)
    else:
        a, c = _int4_wide(product, row, gap)
    if product.groups % BLOCK_GROUPS != 0:
        prefetch_tail(non_temporal, product, row + gap, INT4_BLOCK)
        a, c = int4_tail(product, row, a, c, scratch)
    return total(fma(splat(product.zero), c, a))


@inlined
def following_int8_dot(product: Product, row: int, gap: int, scratch: int) -> float:
    """`row_dot` of int8 for rows that follow each other: prefetches are non-temporal."""
    return _int8(True, product, row, gap, scratch)


@inlined
def following_int4_dot(product: Product, row: int, gap: int, scratch: int) -> float:
    """`row_dot` of int4 for rows that follow each other: prefetches are non-temporal."""
    return _int4(True, product, row, gap, scratch)


@inlined
def following_kquant_dot(product: Product, row: int, gap: int, scratch: int) -> float:  # noqa: ARG001
    """`row_dot` of K-quants for rows that follow each other: prefetches are non-temporal."""
    return kquant_dot_non_temporal(product.matrix, row, product.arguments, row + gap)


@inlined
def following_float_dot(product: Product, row: int, gap: int, scratch: int) -> float:  # noqa: ARG001
    """`row_dot` of f32 or bf16 for rows that follow each other: prefetches are non-temporal."""
    return _floats(True, product, row, gap)


@inlined
def float_dot(product: Product, row: int, gap: int, scratch: int) -> float:  # noqa: ARG001
    """`row_dot` of f32 or bf16."""
    return _floats(False, product, row, gap)


@inlined
def int8_dot(product: Product, row: int, gap: int, scratch: int) -> float:
    """`row_dot` of int8."""
    return _int8(False, product, row, gap, scratch)


@inlined
def int4_dot(product: Product, row: int, gap: int, scratch: int) -> float:
    """`row_dot` of int4."""
    return _int4(False, product, row, gap, scratch)


@inlined
def kquant_row_dot(product: Product, row: int, gap: int, scratch: int) -> float:  # noqa: ARG001
    """`row_dot` of int4k or int6k."""
    return kquant_dot(product.matrix, row, product.arguments, row + gap)
