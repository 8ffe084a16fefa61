"""Blocks of 512 weights of an output-major row whose 16 groups of 32 have a lane each: int8, int4.

                lane 0     lane 1     ...   lane 15         (a lane: four bytes)
    vector 0    0-3        32-35            480-483         input, counted from the block's first
    vector 1    4-7        36-39            484-487
      ...
    vector 7    28-31      60-63            508-511
    sum         group 0    group 1    ...   group 15        one scale each: a vector of scales

int8 has eight vectors of 64 bytes; int4 has four, which hold vectors 0-3 in their low nibbles and
vectors 4-7 in the high ones. A group is summed as integers before it is converted and scaled:
half the instructions of scaling every 64 bytes. Out of L2 a core of an AMD EPYC (Zen 5) reads 65
instead of 43 GB/s of int4 and 95 instead of 62 of int8. docs/format.md draws the bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.byte_dots import HIGH_NIBBLES, storing_digits
from sparity_edge.kernels.simd.integer_dots import carry, dot_first, dot_second
from sparity_edge.kernels.simd.ir import (
    BYTES,
    FLOATS,
    I8,
    I32,
    INTEGERS,
    constant,
    define,
    join,
    load_from,
    mask_bits,
    members,
    offset,
    shift_right,
    struct_type,
    undefined,
)
from sparity_edge.kernels.simd.memory import L1, NON_TEMPORAL, emit_prefetch
from sparity_edge.kernels.simd.vectors import vector

VECTORS = 8  # of 64 numbers in a block
DIGITS = 64 * VECTORS  # bytes of high digits of activations before the low ones
_FOURS = ir.VectorType(I32, 4)

block = struct_type("block", BYTES, VECTORS)  # the numbers of a block as unsigned bytes


# --- products ---------------------------------------------------------------------------------


def load_lines(builder: Any, numbers: Any, ahead: Any, count: int, level: int) -> list[Any]:
    """`count` cache lines of numbers, while as many are prefetched from `ahead` on."""
    lines = []
    for index in range(count):
        emit_prefetch(builder, offset(builder, ahead, 64 * index), level)
        lines.append(load_from(builder, numbers, BYTES, 64 * index))
    return lines


def _loading(level: int) -> tuple[Any, Any]:
    @define(block, types.int64, types.int64)
    def load_int8(builder: Any, numbers: Any, ahead: Any) -> Any:
        """512 signed bytes, each plus 128; prefetches 512 bytes from `ahead` on."""
        lines = load_lines(builder, numbers, ahead, VECTORS, level)
        return join(builder, [builder.xor(line, constant(BYTES, -128)) for line in lines])

    @define(block, types.int64, types.int64)
    def load_int4(builder: Any, numbers: Any, ahead: Any) -> Any:
        """512 nibbles, those of vectors 4-7 times 16; prefetches 256 bytes from `ahead` on.

        Shifting the high nibbles would take two more instructions for every 64 bytes.
        """
        lines = load_lines(builder, numbers, ahead, VECTORS // 2, level)
        low = [mask_bits(builder, line, 15) for line in lines]
        high = [mask_bits(builder, line, HIGH_NIBBLES) for line in lines]
        return join(builder, [*low, *high])

    return load_int8, load_int4


# What is prefetched is used once, or it goes into L2 when L1 has no room for it until then.
load_int8_block, load_int4_block = _loading(NON_TEMPORAL)
load_int8_block_near, load_int4_block_near = _loading(L1)


def digit_sums(builder: Any, weights: list[Any], digits: Any, first: int) -> Any:
    """Products of vectors first.. with activations of two digits each, summed by lanes.

    Of all vectors of int8 they stay below 255 * 32 * 2**15 = 2**28, of int4 in place as well.
    """
    firsts, sums = constant(INTEGERS, 0), constant(INTEGERS, 0)
    for index, numbers in enumerate(weights, first):
        high, low = (load_from(builder, digits, BYTES, start + 64 * index) for start in (0, DIGITS))
        firsts = dot_first(builder, firsts, numbers, high)
        sums = dot_second(builder, sums, numbers, low)
    return builder.add(carry(builder, firsts), sums)


@define(vector, block, types.int64)
def int8_block_dot(builder: Any, weights: Any, digits: Any) -> Any:
    """Of each group the sum of products with a block of activations (see `store_block_digits`)."""
    sums = digit_sums(builder, members(builder, weights, VECTORS), digits, 0)
    return builder.sitofp(sums, FLOATS)


@define(vector, block, types.int64)
def int4_block_dot(builder: Any, weights: Any, digits: Any) -> Any:
    """`int8_block_dot` of a block of int4, whose vectors 4-7 come 16 times too large."""
    numbers, half = members(builder, weights, VECTORS), VECTORS // 2
    low = digit_sums(builder, numbers[:half], digits, 0)
    high = digit_sums(builder, numbers[half:], digits, half)
    sums = builder.add(low, builder.ashr(high, constant(INTEGERS, 4)))
    return builder.sitofp(sums, FLOATS)


store_block_digits = storing_digits(low_at=DIGITS, distance=64)


# --- floats -----------------------------------------------------------------------------------


def _sixteen(widen: Callable[[Any, Any], Any]) -> Any:
    @define(vector, types.int64)
    def load_sixteen(builder: Any, address: Any) -> Any:
        """Four numbers each of four vectors that follow each other, as float32."""
        fours = undefined(_FOURS)
        for index in range(4):
            four = load_from(builder, address, I32, 64 * index)
            fours = builder.insert_element(fours, four, I32(index))
        numbers = widen(builder, builder.bitcast(fours, ir.VectorType(I8, 16)))
        return builder.sitofp(numbers, FLOATS)

    return load_sixteen


lane_bytes = _sixteen(lambda builder, numbers: builder.sext(numbers, INTEGERS))
low_lane_nibbles = _sixteen(
    lambda builder, packed: builder.zext(mask_bits(builder, packed, 15), INTEGERS)
)
high_lane_nibbles = _sixteen(
    lambda builder, packed: builder.zext(shift_right(builder, packed, 4), INTEGERS)
)
