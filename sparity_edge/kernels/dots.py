"""The product of one row of an output-major matrix with the activations, for `vmm` and gathers.

Going through its row, a function asks line by line for memory that the caller needs next, as much
as the row takes: further on in a dense matrix, or the next row that is wanted. Rows of int8 and
int4 go by blocks (see `lanes`), one after the other. Two or four rows side by side share the
activations that were loaded, but a core then waits for several places of memory at once: 0.82 to
0.95 of the memory's speed where one row gives 0.98 (two threads, 48 GB/s, rows of 2 and 4 KB).
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.bytewise import (
    dot_bytes,
    high_nibble_scales,
    high_nibbles_in_place,
    load_both_nibbles,
    load_bytes,
    load_offset_bytes,
    load_offset_bytes_half,
    low_nibbles,
    no_integers,
    splat_halves,
    splat_pair,
    times256,
    to_floats,
)
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.lanes import (
    int4_block_dot,
    int8_block_dot,
    load_int4_block,
    load_int8_block,
)
from sparity_edge.kernels.matrix import (
    BF16,
    DTYPE,
    GROUP,
    GROUPS,
    HEADER_BYTES,
    INT4,
    INT4K,
    INT8,
    MINIMUM,
    PADDED,
    ROW_END,
    SCALES_AT,
)
from sparity_edge.kernels.simd import (
    add,
    fma,
    load,
    load_bf16,
    load_f16,
    load_i64,
    load_splat,
    mul,
    prefetch_once,
    repeat2,
    repeat4,
    splat,
    store,
    total,
)
from sparity_edge.kernels.superblocks import two_superblock_dots

# Arguments of every kernel that multiplies a matrix with one token.
W, X, BIAS, OUT, ACCUMULATE, STEP, AHEAD, DIGITS, SCALES, SUMS = (8 * word for word in range(10))
# Groups of 32 inputs in a block; bytes of a block of int8, of int4 and of its activations.
BLOCK_GROUPS, INT8_BLOCK, INT4_BLOCK, X_BLOCK = 16, 512, 256, 1024

# What rows of a product share: dtype, matrix, arguments, inputs of a group, groups of 32, where in
# a row scales stand, how far behind them minima (0: none), where numbers stand, the addresses of
# digits and scales of activations, how far behind scales sums, and what the sums are multiplied
# with in the end. (Weights
# are multiplied as unsigned integers, so a group of inputs also contributes its sum times what the
# integer 0 stands for: the minimum, or -8 (int4) or -128 (int8) scales.)
Product = tuple[int, int, int, int, int, int, int, int, int, int, int, float]


@device
def product_of(matrix: int, arguments: int) -> Product:
    """What all rows of a product have in common, read once: stores of results would hide it.

    Args:
        matrix: the words of the matrix.
        arguments: those above.
    """
    group, groups = load_i64(matrix + GROUP), load_i64(matrix + PADDED) // 32
    numbers_at, scales_at = load_i64(matrix + HEADER_BYTES), load_i64(matrix + SCALES_AT)
    minima, zero = 2 * load_i64(matrix + GROUPS), 1.0
    if load_i64(matrix + MINIMUM) == 0:
        minima, zero = 0, -128.0 if load_i64(matrix + DTYPE) == INT8 else -8.0
    x, x_scales = load_i64(arguments + DIGITS), load_i64(arguments + SCALES)
    x_sums = load_i64(arguments + SUMS) - x_scales
    return (
        load_i64(matrix + DTYPE), matrix, arguments, group, groups, scales_at, minima, numbers_at,
        x, x_scales, x_sums, zero,
    )  # fmt: skip


@device
def row_dot(product: Product, row: int, gap: int, scratch: int) -> float:
    """The product of a row.

    Args:
        product: as `product_of` gives it.
        row: the address of the row.
        gap: how far on as many bytes as the row has are asked for.
        scratch: 64 bytes.
    """
    if product[0] == INT4:
        return int4_dot(product, row, gap, scratch)
    if product[0] == INT8:
        return int8_dot(product, row, gap, scratch)
    if product[0] >= INT4K:
        return superblock_dot(product, row, gap, scratch)
    return float_dot(product, row, gap, scratch)


@inlined
def superblock_dot(product: Product, row: int, gap: int, scratch: int) -> float:
    """`row_dot` of int4k or int6k."""
    wanted = row + gap
    a, _ = two_superblock_dots(product[1], row, row, product[2], wanted, wanted + 64, scratch)
    return a


@inlined
def float_dot(product: Product, row: int, gap: int, scratch: int) -> float:  # noqa: ARG001
    """`row_dot` of f32 or bf16."""
    a, b = splat(0.0), splat(0.0)
    size, x = load_i64(product[1] + PADDED), load_i64(product[2] + X)
    if product[0] == BF16:
        for _ in range(0, size, 32):
            prefetch_once(row + gap)
            a = fma(load_bf16(row), load(x), a)
            b = fma(load_bf16(row + 32), load(x + 64), b)
            row, x = row + 64, x + 128
        return total(add(a, b))
    for _ in range(0, size - 16, 32):
        prefetch_once(row + gap)
        prefetch_once(row + gap + 64)
        a = fma(load(row), load(x), a)
        b = fma(load(row + 64), load(x + 64), b)
        row, x = row + 128, x + 128
    if size % 32 != 0:
        prefetch_once(row + gap)
        a = fma(load(row), load(x), a)
    return total(add(a, b))


@inlined
def spread(group: int, halves: int, index: int, left: int) -> Any:
    """Of a row's float16 numbers those of groups index..index+15 of 32 inputs; `left` are there."""
    if group == 32:
        return load_f16(halves + 2 * index, left)
    if group == 64:
        return repeat2(load_f16(halves + index, left // 2))
    return repeat4(load_f16(halves + index // 2, left // 4))


@inlined
def ask_lines(start: int, end: int) -> None:
    """Ask for the lines from one address to another."""
    for place in range(start, end, 64):
        prefetch_once(place)


@inlined
def add_groups(
    products: Any, scales: Any, offsets: Any, x_scales: int, x_sums: int, a: Any, c: Any
) -> tuple[Any, Any]:
    """Add 16 groups to the sums a of products and c of activations.

    Args:
        products: sums of integers.
        scales: of the weights.
        offsets: their minima, or the scales again.
        x_scales: address of those of the activations.
        x_sums: how far on their sums stand.
        a, c: so far.
    """
    of_x = load(x_scales)
    c = fma(mul(offsets, of_x), load(x_scales + x_sums), c)
    return fma(mul(scales, of_x), products, a), c


@inlined
def _int8_blocks(group: int, product: Product, row: int, gap: int) -> tuple[Any, Any]:
    """The sums of products and of activations over the blocks of a row."""
    a, c, header, p = splat(0.0), splat(0.0), row + product[5], row + product[7]
    x, x_scales, x_sums = product[8], product[9], product[10]
    for index in range(0, product[4] - BLOCK_GROUPS + 1, BLOCK_GROUPS):
        scales = spread(group, header, index, BLOCK_GROUPS)
        products = int8_block_dot(load_int8_block(p, p + gap), x)
        a, c = add_groups(products, scales, scales, x_scales, x_sums, a, c)
        p, x, x_scales = p + INT8_BLOCK, x + X_BLOCK, x_scales + 64
    return a, c


@inlined
def _int4_blocks(group: int, product: Product, row: int, gap: int) -> tuple[Any, Any]:
    a, c, header, minima = splat(0.0), splat(0.0), row + product[5], product[6]
    p, x, x_scales, x_sums = row + product[7], product[8], product[9], product[10]
    for index in range(0, product[4] - BLOCK_GROUPS + 1, BLOCK_GROUPS):
        scales = spread(group, header, index, BLOCK_GROUPS)
        offsets = spread(group, header + minima, index, BLOCK_GROUPS)
        products = int4_block_dot(load_int4_block(p, p + gap), x)
        a, c = add_groups(products, scales, offsets, x_scales, x_sums, a, c)
        p, x, x_scales = p + INT4_BLOCK, x + X_BLOCK, x_scales + 64
    return a, c


@device
def _int8_wide(product: Product, row: int, gap: int) -> tuple[Any, Any]:
    return _int8_blocks(product[3], product, row, gap)


@device
def _int4_wide(product: Product, row: int, gap: int) -> tuple[Any, Any]:
    return _int4_blocks(product[3], product, row, gap)


@inlined
def ask_front(product: Product, row: int) -> None:
    """Ask for what stands in front of the numbers of a row."""
    ask_lines(row, row + product[7])


@inlined
def ask_behind(product: Product, row: int, block: int) -> None:
    """Ask for what stands behind the blocks of a row, of so many bytes."""
    first = row + product[7] + product[4] // BLOCK_GROUPS * block
    ask_lines(first, row + load_i64(product[1] + ROW_END))


@inlined
def int8_dot(product: Product, row: int, gap: int, scratch: int) -> float:
    """`row_dot` of int8. Groups of 32 have a loop of their own: registers are scarce."""
    ask_front(product, row + gap)
    if product[3] == 32:
        a, c = _int8_blocks(32, product, row, gap)
    else:
        a, c = _int8_wide(product, row, gap)
    if product[4] % BLOCK_GROUPS != 0:
        ask_behind(product, row + gap, INT8_BLOCK)
        a, c = int8_rest(product, row, a, c, scratch)
    return total(fma(splat(product[11]), c, a))


@inlined
def int4_dot(product: Product, row: int, gap: int, scratch: int) -> float:
    """`row_dot` of int4."""
    ask_front(product, row + gap)
    if product[3] == 32:
        a, c = _int4_blocks(32, product, row, gap)
    else:
        a, c = _int4_wide(product, row, gap)
    if product[4] % BLOCK_GROUPS != 0:
        ask_behind(product, row + gap, INT4_BLOCK)
        a, c = int4_rest(product, row, a, c, scratch)
    return total(fma(splat(product[11]), c, a))


# --- behind the last block, at most 15 groups -----------------------------------------------


@inlined
def _digit_dot(weights: Any, x: int) -> Any:
    """Sums of products, by fours, with 64 activations whose high and low digits stand at x."""
    high = dot_bytes(no_integers(), weights, load_bytes(x))
    return to_floats(dot_bytes(times256(high), weights, load_bytes(x + 64)))


@inlined
def _join_scales(
    product: Product, row: int, index: int, parts: Any, offsets: Any, scratch: int
) -> Any:
    """Scales of weights, of activations and `parts` to scratch; returns the offsets so far."""
    _, _, _, group, groups, scales_at, minima, _, _, x_scales, x_sums, _ = product
    left, of_x = groups - index, load(x_scales + 4 * index)
    scales = mul(spread(group, row + scales_at, index, left), of_x)
    store(scratch, mul(scales, parts))
    if minima != 0:
        scales = mul(spread(group, row + scales_at + minima, index, left), of_x)
    return fma(scales, load(x_scales + x_sums + 4 * index), offsets)


@inlined
def int8_rest(product: Product, row: int, a: Any, c: Any, scratch: int) -> tuple[Any, Any]:
    """Add the groups behind the last block to the sums a of products and c of activations."""
    groups, whole = product[4], product[4] // BLOCK_GROUPS * BLOCK_GROUPS
    c = _join_scales(product, row, whole, splat(1.0), c, scratch)
    p, x = row + product[7] + 32 * whole, product[8] + 64 * whole
    for index in range(0, groups - whole - 1, 2):
        scale = scratch + 4 * index
        a = fma(splat_halves(scale, scale + 4), _digit_dot(load_offset_bytes(p), x), a)
        p, x = p + 64, x + 128
    if (groups - whole) % 2 != 0:
        scale = scratch + 4 * (groups - whole - 1)
        a = fma(load_splat(scale), _digit_dot(load_offset_bytes_half(p), x), a)
    return a, c


@inlined
def int4_rest(product: Product, row: int, a: Any, c: Any, scratch: int) -> tuple[Any, Any]:
    """The same of int4."""
    groups, whole = product[4], product[4] // BLOCK_GROUPS * BLOCK_GROUPS
    c = _join_scales(product, row, whole, high_nibble_scales(), c, scratch)
    p, x = row + product[7] + 16 * whole, product[8] + 64 * whole
    for index in range(0, groups - whole - 2, 4):
        scale, both = scratch + 4 * index, load_bytes(p)
        a = fma(splat_pair(scale), _digit_dot(low_nibbles(both), x), a)
        a = fma(splat_pair(scale + 8), _digit_dot(high_nibbles_in_place(both), x + 128), a)
        p, x = p + 64, x + 256
    if (groups - whole) % 4 != 0:
        scale = scratch + 4 * (groups - whole - 2)
        a = fma(splat_pair(scale), _digit_dot(load_both_nibbles(p), x), a)
    return a, c
