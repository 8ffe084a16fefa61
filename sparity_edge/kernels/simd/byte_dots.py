"""Products of 8-bit and 4-bit weights with 16-bit activations, sixty-four bytes at a time.

    byte of a register    0  1  2  3 | 4  5  6  7 | ...    | 60 61 62 63
    lane of the sums          0      |     1      | ...    |     15

Weights are unsigned bytes; an activation is two signed ones, high * 256 + low (see `integer_dots`),
so that one instruction (`vpdpbusd`, where the CPU has it) takes 64 weights, and two of them lose
nothing against 16 bits. Which lane belongs to which group of weights is decided by the order of
bytes in memory: `block_dots` and `kquants` have a group to a lane, tails of rows eight lanes to a
group. Sums are integers: the same on every CPU whatever instructions it has.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.integer_dots import carry, dot_first, dot_second, halves_of
from sparity_edge.kernels.simd.ir import (
    BYTES,
    F32,
    FLOATS,
    I8,
    I32,
    I64,
    INTEGERS,
    call_llvm,
    concatenate,
    constant,
    define,
    load_from,
    mask_bits,
    offset,
    shift_right,
    shuffle,
    splat,
    store_to,
)
from sparity_edge.kernels.simd.vectors import byte_vector, integer_vector, vector

HIGH_NIBBLES = 0xF0 - 0x100  # as a signed byte
_HALF = ir.VectorType(I8, 32)


# --- weights ----------------------------------------------------------------------------------


@define(byte_vector, types.int64)
def load_offset_bytes(builder: Any, address: Any) -> Any:
    """Sixty-four signed bytes, each plus 128, so that they are unsigned."""
    return builder.xor(load_from(builder, address, BYTES), constant(BYTES, -128))


@define(byte_vector, types.int64)
def load_offset_bytes_half(builder: Any, address: Any) -> Any:
    """Thirty-two signed bytes, each plus 128; the other lanes are zero."""
    flipped = builder.xor(load_from(builder, address, _HALF), constant(_HALF, -128))
    return concatenate(builder, [flipped, constant(_HALF, 0)])


@define(byte_vector, byte_vector)
def low_nibbles(builder: Any, packed: Any) -> Any:
    """The low four bits of every byte."""
    return mask_bits(builder, packed, 15)


@define(byte_vector, byte_vector)
def high_nibbles(builder: Any, packed: Any) -> Any:
    """The high four bits of every byte."""
    return shift_right(builder, packed, 4)


@define(byte_vector, byte_vector)
def high_nibbles_in_place(builder: Any, packed: Any) -> Any:
    """The high four bits of every byte, where they stand: 16 times the nibble.

    The shift would take two instructions; `high_nibble_scales` take the 16 back.
    """
    return mask_bits(builder, packed, HIGH_NIBBLES)


@define(vector)
def high_nibble_scales(_builder: Any) -> Any:
    """1 1 1/16 1/16, repeated: for 16 groups of 32, whose nibbles are two low, two high."""
    return ir.Constant(FLOATS, [1.0, 1.0, 0.0625, 0.0625] * 4)


@define(byte_vector, types.int64)
def load_both_nibbles(builder: Any, address: Any) -> Any:
    """The low nibbles of thirty-two bytes, then their high nibbles."""
    packed = load_from(builder, address, _HALF)
    return concatenate(builder, [mask_bits(builder, packed, 15), shift_right(builder, packed, 4)])


# --- sums -------------------------------------------------------------------------------------


@define(integer_vector)
def no_integers(_builder: Any) -> Any:
    """Sixteen zeros."""
    return constant(INTEGERS, 0)


@define(integer_vector, integer_vector, byte_vector, byte_vector)
def dot_first_half(builder: Any, sums: Any, unsigned: Any, first: Any) -> Any:
    """sums[i] plus bytes 4 i to 4 i + 3 times the first halves of their activations."""
    return dot_first(builder, sums, unsigned, first)


@define(integer_vector, integer_vector, byte_vector, byte_vector)
def dot_second_half(builder: Any, sums: Any, unsigned: Any, second: Any) -> Any:
    """sums[i] plus bytes 4 i to 4 i + 3 times the second halves of their activations.

    What was summed of the first halves has to be carried.
    """
    return dot_second(builder, sums, unsigned, second)


@define(integer_vector, integer_vector)
def carried(builder: Any, sums: Any) -> Any:
    """What sums of first halves count for."""
    return carry(builder, sums)


@define(vector, integer_vector)
def to_floats(builder: Any, sums: Any) -> Any:
    """Integers as float32."""
    return builder.sitofp(sums, FLOATS)


# --- scales and floats of tails ---------------------------------------------------------------


@define(vector, types.int64)
def splat_pair(builder: Any, address: Any) -> Any:
    """Two float32 interleaved in all lanes: a b a b ..."""
    return builder.bitcast(splat(builder, load_from(builder, address, I64), 8), FLOATS)


@define(vector, types.int64, types.int64)
def splat_halves(builder: Any, first: Any, second: Any) -> Any:
    """The float32 of one address in lanes 0-7, of the other in lanes 8-15."""
    left, right = (splat(builder, load_from(builder, each, F32)) for each in (first, second))
    return shuffle(builder, left, right, [lane + lane // 8 * 16 for lane in range(16)])


def _every_other_four(builder: Any, address: Any) -> Any:
    """Bytes 0-3, 8-11, 16-19 and 24-27; reads 28."""
    packed = load_from(builder, address, ir.VectorType(I8, 28))
    return shuffle(builder, packed, packed, [8 * (lane // 4) + lane % 4 for lane in range(16)])


@define(vector, types.int64)
def load_low_fours(builder: Any, address: Any) -> Any:
    """The low nibbles of every other four of 28 bytes as float32."""
    nibbles = mask_bits(builder, _every_other_four(builder, address), 15)
    return builder.sitofp(builder.zext(nibbles, INTEGERS), FLOATS)


@define(vector, types.int64)
def load_high_fours(builder: Any, address: Any) -> Any:
    """The high nibbles of every other four of 28 bytes as float32."""
    nibbles = shift_right(builder, _every_other_four(builder, address), 4)
    return builder.sitofp(builder.zext(nibbles, INTEGERS), FLOATS)


# --- activations ------------------------------------------------------------------------------


def _digits_of(builder: Any, values: Any) -> tuple[Any, list[Any]]:
    """Rounded numbers, and both halves of them as sixteen bytes each."""
    whole = call_llvm(builder, "rint", values)
    return whole, list(halves_of(builder, builder.fptosi(whole, INTEGERS)))


@define(vector, types.int64, vector)
def store_digits(builder: Any, address: Any, values: Any) -> Any:
    """Round sixteen numbers of at most 127 * 256 and write their high digits, the low 64 bytes on.

    Returns:
        The rounded numbers.
    """
    whole, digits = _digits_of(builder, values)
    for place, digit in zip((0, 64), digits):
        store_to(builder, digit, address, place)
    return whole


def storing_digits(low_at: int, distance: int) -> Any:
    """`store_digits` for weights of which four numbers of a group stand side by side.

    Args:
        low_at: bytes from the high digits to the low ones.
        distance: bytes from four digits to the next four.

    Returns:
        An intrinsic: (address, sixteen numbers) -> the rounded numbers.
    """

    @define(vector, types.int64, vector)
    def store_fours(builder: Any, address: Any, values: Any) -> Any:
        """Round sixteen numbers of at most 127 * 256 and write their digits by fours."""
        whole, digits = _digits_of(builder, values)
        for place, digit in zip((0, low_at), digits):
            fours = builder.bitcast(digit, ir.VectorType(I32, 4))
            for index in range(4):
                four = builder.extract_element(fours, I32(index))
                store_to(builder, four, offset(builder, address, place + distance * index))
        return whole

    return store_fours


store_digits_by_fours = storing_digits(low_at=64, distance=8)
