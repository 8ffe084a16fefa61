"""Blocks of 512 weights whose 16 groups of 32 have a lane each: output-major int8 and int4.

Vector k of a block holds, lane by lane, the numbers 4 k to 4 k + 3 of all groups, so that a lane of
a byte dot product adds up a whole group before it is converted and multiplied with its scale, which
stands in its lane of a vector of scales. That takes half the instructions of scaling every 64
bytes: out of the second-level cache a core of Zen 5 reads 65 instead of 43 GB/s of int4 and 95
instead of 62 of int8. Everything here is an intrinsic, as in `simd`; docs/format.md draws a block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import models, register_model

from sparity_edge.kernels.simd.bytewise import digits_of
from sparity_edge.kernels.simd.intrinsics import F32, I8, I16, I32, I64, at, define, load_unaligned
from sparity_edge.kernels.simd.products import carry, dot_first, dot_second
from sparity_edge.kernels.simd.vectors import L1, ONCE, ask_for, vector

VECTORS = 8  # of 64 numbers in a block
GROUPS = 16  # of 32
DIGITS = 64 * VECTORS  # bytes of high digits before the low ones
_BYTES = ir.VectorType(I8, 64)
_FOURS = ir.VectorType(I32, 4)
_INTEGERS = ir.VectorType(I32, 16)
_FLOATS = ir.VectorType(F32, 16)
_SHORTS = ir.VectorType(I16, 32)
_BLOCK = ir.LiteralStructType([_BYTES] * VECTORS)


class Block(types.Type):
    """The numbers of a block as unsigned bytes."""

    def __init__(self) -> None:
        super().__init__(name="block")


block = Block()


@register_model(Block)
class _BlockModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _BLOCK)


def _constant(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _load(builder: Any, address: Any, nbytes: int, kind: ir.Type) -> Any:
    return load_unaligned(builder, builder.add(address, I64(nbytes)), kind)


def _of_vectors(builder: Any, vectors: Sequence[Any]) -> Any:
    value = ir.Constant(_BLOCK, ir.Undefined)
    for index, each in enumerate(vectors):
        value = builder.insert_value(value, each, index)
    return value


# --- products -------------------------------------------------------------------------------


def _load_lines(builder: Any, numbers: Any, wanted: Any, count: int, level: int) -> list[Any]:
    """Lines of 64 bytes, while as many are asked for."""
    lines = []
    for index in range(count):
        ask_for(builder, builder.add(wanted, I64(64 * index)), level)
        lines.append(_load(builder, numbers, 64 * index, _BYTES))
    return lines


def _loading(level: int) -> tuple[Any, Any]:
    @define(block, types.int64, types.int64)
    def load_int8(builder: Any, numbers: Any, wanted: Any) -> Any:
        """512 signed bytes, each plus 128; asks for as many from `wanted` on."""
        lines = _load_lines(builder, numbers, wanted, VECTORS, level)
        return _of_vectors(builder, [builder.xor(line, _constant(_BYTES, -128)) for line in lines])

    @define(block, types.int64, types.int64)
    def load_int4(builder: Any, numbers: Any, wanted: Any) -> Any:
        """512 nibbles, the second half of each group times 16; asks for 256 bytes.

        Shifting the high nibbles would take two more instructions for every 64 bytes.
        """
        lines = _load_lines(builder, numbers, wanted, VECTORS // 2, level)
        low = [builder.and_(line, _constant(_BYTES, 15)) for line in lines]
        high = [builder.and_(line, _constant(_BYTES, 0xF0 - 0x100)) for line in lines]
        return _of_vectors(builder, [*low, *high])

    return load_int8, load_int4


# What they ask for is used once, or it goes into L2 when L1 has no room for it until then.
load_int8_block, load_int4_block = _loading(ONCE)
load_int8_block_near, load_int4_block_near = _loading(L1)


def _digit_sums(builder: Any, weights: Any, digits: Any, vectors: range) -> Any:
    """Products with activations of two digits each, added up by lanes.

    Of all vectors of int8 they stay below 255 * 32 * 2**15 = 2**28, of int4 in place as well.
    """
    firsts, sums = _constant(_INTEGERS, 0), _constant(_INTEGERS, 0)
    for index in vectors:
        number = builder.extract_value(weights, index)
        halves = [_load(builder, digits, start + 64 * index, _BYTES) for start in (0, DIGITS)]
        firsts = dot_first(builder, firsts, number, halves[0])
        sums = dot_second(builder, sums, number, halves[1])
    return builder.add(carry(builder, firsts), sums)


@define(vector, block, types.int64)
def int8_block_dot(builder: Any, weights: Any, digits: Any) -> Any:
    """Of each group the sum of products with a block of activations (see `store_lane_digits`)."""
    sums = _digit_sums(builder, weights, digits, range(VECTORS))
    return builder.sitofp(sums, _FLOATS)


@define(vector, block, types.int64)
def int4_block_dot(builder: Any, weights: Any, digits: Any) -> Any:
    """The same of a block of int4, whose second halves come 16 times too large."""
    low = _digit_sums(builder, weights, digits, range(VECTORS // 2))
    high = _digit_sums(builder, weights, digits, range(VECTORS // 2, VECTORS))
    sums = builder.add(low, builder.ashr(high, _constant(_INTEGERS, 4)))
    return builder.sitofp(sums, _FLOATS)


@define(vector, types.int64, vector)
def store_lane_digits(builder: Any, address: Any, values: Any) -> Any:
    """Round 16 numbers of a group and write the high and low digits of four after four.

    Returns:
        The rounded numbers.
    """
    whole, *digits = digits_of(builder, values)
    for start, digit in zip((0, DIGITS), digits):
        fours = builder.bitcast(digit, _FOURS)
        for index in range(4):
            place = at(builder, builder.add(address, I64(start + 64 * index)), I32)
            builder.store(builder.extract_element(fours, I32(index)), place, align=1)
    return whole


# --- floats ---------------------------------------------------------------------------------


def _low_nibbles(builder: Any, packed: Any, wide: Any = _INTEGERS) -> Any:
    return builder.zext(builder.and_(packed, _constant(packed.type, 15)), wide)


def _high_nibbles(builder: Any, packed: Any, wide: Any = _INTEGERS) -> Any:
    return builder.zext(builder.lshr(packed, _constant(packed.type, 4)), wide)


def _sixteen(take: Callable[[Any, Any], Any]) -> Any:
    @define(vector, types.int64)
    def load_sixteen(builder: Any, address: Any) -> Any:
        """Four numbers each of four vectors that follow each other, as float32."""
        fours = ir.Constant(_FOURS, ir.Undefined)
        for index in range(4):
            fours = builder.insert_element(
                fours, _load(builder, address, 64 * index, I32), I32(index)
            )
        numbers = take(builder, builder.bitcast(fours, ir.VectorType(I8, 16)))
        return builder.sitofp(numbers, _FLOATS)

    return load_sixteen


lane_bytes = _sixteen(lambda builder, numbers: builder.sext(numbers, _INTEGERS))
low_lane_nibbles, high_lane_nibbles = _sixteen(_low_nibbles), _sixteen(_high_nibbles)
