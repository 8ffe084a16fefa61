"""The tail of an output-major row of int8 or int4: at most fifteen groups after the last block.

    int8, 64 bytes    lanes 0-7: group 0         lanes 8-15: group 1
    int4, 64 bytes    even lanes: group 0        odd lanes: group 1       (low nibbles)
                      even lanes: group 2        odd lanes: group 3       (high nibbles)

Two or four groups of 32 inputs share a vector of numbers, whose scales are spread over its lanes.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.decode.dot_arguments import BLOCK_GROUPS, Product, spread
from sparity_edge.kernels.kernel import inlined
from sparity_edge.kernels.simd.byte_dots import (
    carried,
    dot_first_half,
    dot_second_half,
    high_nibble_scales,
    high_nibbles_in_place,
    load_both_nibbles,
    load_offset_bytes,
    load_offset_bytes_half,
    low_nibbles,
    no_integers,
    splat_halves,
    splat_pair,
    to_floats,
)
from sparity_edge.kernels.simd.memory import load, load_bytes, load_splat, store
from sparity_edge.kernels.simd.vectors import fma, mul, splat


@inlined
def _digit_dot(weights: Any, x: int) -> Any:
    """Sums of products, four to a lane, with 64 activations whose halves stand at x."""
    sums = carried(dot_first_half(no_integers(), weights, load_bytes(x)))
    return to_floats(dot_second_half(sums, weights, load_bytes(x + 64)))


@inlined
def _join_scales(
    product: Product, row: int, index: int, parts: Any, offsets: Any, scratch: int
) -> Any:
    """Scales of weights, of activations and `parts` to scratch; returns the offsets so far."""
    x_scales, halves = product.x_scales + 4 * index, row + product.scales_at
    left, of_x = product.groups - index, load(x_scales)
    scales = mul(spread(product.group, halves, index, left), of_x)
    store(scratch, mul(scales, parts))
    if product.minima_at != 0:
        scales = mul(spread(product.group, halves + product.minima_at, index, left), of_x)
    return fma(scales, load(x_scales + product.x_sums), offsets)


@inlined
def int8_tail(product: Product, row: int, a: Any, c: Any, scratch: int) -> tuple[Any, Any]:
    """Add the tail of an int8 row.

    Args:
        product: as `product_of` gives it.
        row: the address of the row.
        a, c: vectors of sums so far, of products and of activations times offsets.
        scratch: 64 bytes.

    Returns:
        The new a and c.
    """
    groups, whole = product.groups, product.groups // BLOCK_GROUPS * BLOCK_GROUPS
    c = _join_scales(product, row, whole, splat(1.0), c, scratch)
    p, x = row + product.numbers_at + 32 * whole, product.x + 64 * whole
    for index in range(0, groups - whole - 1, 2):
        scale = scratch + 4 * index
        a = fma(splat_halves(scale, scale + 4), _digit_dot(load_offset_bytes(p), x), a)
        p, x = p + 64, x + 128
    if (groups - whole) % 2 != 0:
        scale = scratch + 4 * (groups - whole - 1)
        a = fma(load_splat(scale), _digit_dot(load_offset_bytes_half(p), x), a)
    return a, c


@inlined
def int4_tail(product: Product, row: int, a: Any, c: Any, scratch: int) -> tuple[Any, Any]:
    """Add the tail of an int4 row, whose last unit may be of 64 inputs: see `int8_tail`."""
    groups, whole = product.groups, product.groups // BLOCK_GROUPS * BLOCK_GROUPS
    c = _join_scales(product, row, whole, high_nibble_scales(), c, scratch)
    p, x = row + product.numbers_at + 16 * whole, product.x + 64 * whole
    for index in range(0, groups - whole - 2, 4):
        scale, both = scratch + 4 * index, load_bytes(p)
        a = fma(splat_pair(scale), _digit_dot(low_nibbles(both), x), a)
        a = fma(splat_pair(scale + 8), _digit_dot(high_nibbles_in_place(both), x + 128), a)
        p, x = p + 64, x + 256
    if (groups - whole) % 4 != 0:
        scale = scratch + 4 * (groups - whole - 2)
        a = fma(splat_pair(scale), _digit_dot(load_both_nibbles(p), x), a)
    return a, c
