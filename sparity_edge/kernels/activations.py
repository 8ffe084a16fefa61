"""Activations as 16-bit integers for the bytewise kernels: digits, scales and sums.

Thirty-two numbers share a scale, so that an outlier costs only its neighbours precision: the error
is 1.5e-5 of the largest of the thirty-two. A unit of 64 numbers is 64 high digits, then 64 low
ones, in the order in which the weights of the format come out of memory.
"""

from __future__ import annotations

from sparity_edge.kernels.bytewise import store_digits, store_digits_by_fours
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.simd import (
    add,
    largest,
    load,
    load_i64,
    maximum,
    mul,
    splat,
    store_f32,
    sub,
    total,
)
from sparity_edge.kernels.superblocks import split_in_superblock

MOST = 127 * 256  # so that the high digit fits into a signed byte
BLOCK = 2048  # numbers in one chunk

X, SIZE, ORDER, DIGITS, SCALES, SUMS = (8 * word for word in range(6))
# Orders of digits; for superblocks SCALES is the place of all floats that go with them.
IN_A_ROW, BY_FOURS, IN_SUPERBLOCKS = range(3)
ORDERS = {"int4": BY_FOURS, "int4k": IN_SUPERBLOCKS, "int6k": IN_SUPERBLOCKS}


@Kernel
def split_activations(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """BLOCK numbers of X; SIZE is a multiple of 32. Zeros follow X, and DIGITS to a whole unit."""
    x, digits = load_i64(arguments + X), load_i64(arguments + DIGITS)
    order = load_i64(arguments + ORDER)
    for i in range(chunk * BLOCK, min((chunk + 1) * BLOCK, load_i64(arguments + SIZE)), 32):
        if order == IN_SUPERBLOCKS:
            split_in_superblock(x, i // 32, digits, load_i64(arguments + SCALES))
            continue
        v, w = load(x + 4 * i), load(x + 4 * i + 64)
        sizes = maximum(maximum(v, sub(splat(0.0), v)), maximum(w, sub(splat(0.0), w)))
        most = largest(sizes)
        # What is no number is lost in the comparisons; 0 * x brings it back.
        broken = total(mul(add(v, w), splat(0.0)))
        scale = most / MOST + broken
        inverse = splat(MOST / most) if most > 0 else splat(0.0)
        place = digits + i // 64 * 128
        if order == BY_FOURS:  # four numbers of one group and four of the next by turns
            first = store_digits_by_fours(place + i % 64 // 8, mul(v, inverse))
            second = store_digits_by_fours(place + i % 64 // 8 + 32, mul(w, inverse))
        else:
            first = store_digits(place + i % 64, mul(v, inverse))
            second = store_digits(place + i % 64 + 16, mul(w, inverse))
        store_f32(load_i64(arguments + SCALES) + i // 8, scale)
        # A whole number: the offset that it is multiplied with has to cancel to the last bit.
        store_f32(load_i64(arguments + SUMS) + i // 8, total(add(first, second)))
