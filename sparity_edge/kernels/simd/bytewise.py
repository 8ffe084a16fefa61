"""Sixty-four bytes at a time: products of 8-bit and 4-bit weights with 16-bit activations.

An activation is two signed bytes, high * 256 + low, so that one instruction (`vpdpbusd`, where the
CPU has it) takes 64 weights and two of them lose nothing against 16 bits. Sums are integers: the
same on every CPU whatever instructions it has.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import models, register_model

from sparity_edge.kernels.simd.intrinsics import F32, I8, I32, I64, at, define, load_unaligned
from sparity_edge.kernels.simd.products import carry, dot_first, dot_second, halves_of
from sparity_edge.kernels.simd.vectors import call_llvm, vector

_BYTES = ir.VectorType(I8, 64)
_INTEGERS = ir.VectorType(I32, 16)
_FLOATS = ir.VectorType(F32, 16)


class Bytes(types.Type):
    """Sixty-four bytes; signed or not is the operation's affair."""

    def __init__(self) -> None:
        super().__init__(name="i8x64")


class Integers(types.Type):
    """Sixteen int32 lanes."""

    def __init__(self) -> None:
        super().__init__(name="i32x16")


byte_vector, integer_vector = Bytes(), Integers()


@register_model(Bytes)
class _BytesModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _BYTES)


@register_model(Integers)
class _IntegersModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _INTEGERS)


def _constant(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _pick(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    """Lanes of left (0 ...) and right (count ...) in the order given."""
    mask = ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
    return builder.shuffle_vector(left, right, mask)


def _widen(builder: Any, half: Any) -> Any:
    """Thirty-two bytes as sixty-four, the rest zero."""
    return _pick(builder, half, _constant(half.type, 0), list(range(64)))


@define(byte_vector, types.int64)
def load_bytes(builder: Any, address: Any) -> Any:
    """Sixty-four bytes."""
    return load_unaligned(builder, address, _BYTES)


@define(byte_vector, types.int64)
def load_offset_bytes(builder: Any, address: Any) -> Any:
    """Sixty-four signed bytes, each plus 128, so that they are unsigned."""
    return builder.xor(load_unaligned(builder, address, _BYTES), _constant(_BYTES, -128))


@define(byte_vector, types.int64)
def load_offset_bytes_half(builder: Any, address: Any) -> Any:
    """Thirty-two signed bytes, each plus 128; the other lanes are zero."""
    half = ir.VectorType(I8, 32)
    flipped = builder.xor(load_unaligned(builder, address, half), _constant(half, -128))
    return _widen(builder, flipped)


@define(byte_vector, byte_vector)
def low_nibbles(builder: Any, packed: Any) -> Any:
    """The low four bits of every byte."""
    return builder.and_(packed, _constant(_BYTES, 15))


@define(byte_vector, byte_vector)
def high_nibbles(builder: Any, packed: Any) -> Any:
    """The high four bits of every byte."""
    return builder.lshr(packed, _constant(_BYTES, 4))


@define(byte_vector, byte_vector)
def high_nibbles_in_place(builder: Any, packed: Any) -> Any:
    """The high four bits of every byte, where they stand: 16 times the nibble.

    The shift would take two instructions; `high_nibble_scales` take the 16 back.
    """
    return builder.and_(packed, _constant(_BYTES, 0xF0 - 0x100))


@define(vector)
def high_nibble_scales(_builder: Any) -> Any:
    """1, 1, 1/16, 1/16 by turns: for 16 groups of 32, whose nibbles are two low, two high."""
    return ir.Constant(_FLOATS, [1.0, 1.0, 0.0625, 0.0625] * 4)


@define(byte_vector, types.int64)
def load_both_nibbles(builder: Any, address: Any) -> Any:
    """The low nibbles of thirty-two bytes, then their high nibbles."""
    packed = load_unaligned(builder, address, ir.VectorType(I8, 32))
    low = builder.and_(packed, _constant(packed.type, 15))
    high = builder.lshr(packed, _constant(packed.type, 4))
    return _pick(builder, low, high, list(range(64)))


def _every_other_four(builder: Any, address: Any) -> Any:
    """Bytes 0-3, 8-11, 16-19 and 24-27; reads 28."""
    packed = load_unaligned(builder, address, ir.VectorType(I8, 28))
    return _pick(builder, packed, packed, [8 * (lane // 4) + lane % 4 for lane in range(16)])


@define(vector, types.int64)
def load_low_fours(builder: Any, address: Any) -> Any:
    """The low nibbles of every other four of 28 bytes as float32."""
    fours = _every_other_four(builder, address)
    nibbles = builder.and_(fours, _constant(fours.type, 15))
    return builder.sitofp(builder.zext(nibbles, _INTEGERS), _FLOATS)


@define(vector, types.int64)
def load_high_fours(builder: Any, address: Any) -> Any:
    """The high nibbles of every other four of 28 bytes as float32."""
    fours = _every_other_four(builder, address)
    nibbles = builder.lshr(fours, _constant(fours.type, 4))
    return builder.sitofp(builder.zext(nibbles, _INTEGERS), _FLOATS)


@define(integer_vector)
def no_integers(_builder: Any) -> Any:
    """Sixteen zeros."""
    return _constant(_INTEGERS, 0)


@define(integer_vector, integer_vector, byte_vector, byte_vector)
def dot_first_half(builder: Any, sums: Any, unsigned: Any, first: Any) -> Any:
    """sums[i] plus bytes 4 i to 4 i + 3 times the first halves of their activations."""
    return dot_first(builder, sums, unsigned, first)


@define(integer_vector, integer_vector, byte_vector, byte_vector)
def dot_second_half(builder: Any, sums: Any, unsigned: Any, second: Any) -> Any:
    """The same with the second halves; what was summed of the first has to be carried."""
    return dot_second(builder, sums, unsigned, second)


@define(integer_vector, integer_vector)
def carried(builder: Any, sums: Any) -> Any:
    """What sums of first halves count for."""
    return carry(builder, sums)


@define(vector, integer_vector)
def to_floats(builder: Any, sums: Any) -> Any:
    """Integers as float32."""
    return builder.sitofp(sums, _FLOATS)


@define(vector, types.int64)
def splat_pair(builder: Any, address: Any) -> Any:
    """Two float32 by turns in all lanes."""
    pair = load_unaligned(builder, address, I64)
    kind = ir.VectorType(I64, 8)
    alone = builder.insert_element(ir.Constant(kind, ir.Undefined), pair, I32(0))
    return builder.bitcast(_pick(builder, alone, alone, [0] * 8), _FLOATS)


@define(vector, types.int64, types.int64)
def splat_halves(builder: Any, first: Any, second: Any) -> Any:
    """The float32 of one address in lanes 0-7, of the other in lanes 8-15."""
    vectors = []
    for address in (first, second):
        value = load_unaligned(builder, address, F32)
        alone = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, I32(0))
        vectors.append(_pick(builder, alone, alone, [0] * 16))
    first_half, second_half = vectors
    return _pick(builder, first_half, second_half, [lane + lane // 8 * 16 for lane in range(16)])


def digits_of(builder: Any, values: Any) -> tuple[Any, Any, Any]:
    """Rounded numbers, and both halves of them as bytes."""
    whole = call_llvm(builder, "rint", values)
    return whole, *halves_of(builder, builder.fptosi(whole, _INTEGERS))


@define(vector, types.int64, vector)
def store_digits(builder: Any, address: Any, values: Any) -> Any:
    """Round sixteen numbers of at most 127 * 256 and write their high digits, the low 64 bytes on.

    Returns:
        The rounded numbers.
    """
    whole, *digits = digits_of(builder, values)
    for offset, digit in zip((0, 64), digits):
        place = at(builder, builder.add(address, I64(offset)), digit.type)
        builder.store(digit, place, align=1)
    return whole


@define(vector, types.int64, vector)
def store_digits_by_fours(builder: Any, address: Any, values: Any) -> Any:
    """As `store_digits`, but four bytes are written and four left out by turns."""
    whole, *digits = digits_of(builder, values)
    for offset, digit in zip((0, 64), digits):
        fours = builder.bitcast(digit, ir.VectorType(I32, 4))
        for index in range(4):
            place = at(builder, builder.add(address, I64(offset + 8 * index)), I32)
            builder.store(builder.extract_element(fours, I32(index)), place, align=1)
    return whole
