"""Loads that widen to float32 and stores that round: int8, nibbles, bfloat16, float16.

Sixteen numbers at a time, or one (`..._alone`) where a row does not end with a vector. Everything
here is an intrinsic; an address is an int64 count of bytes and need not be aligned.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.ir import (
    F32,
    FLOATS,
    I8,
    I16,
    I32,
    INTEGERS,
    LANE_NUMBERS,
    LANES,
    call_llvm,
    constant,
    define,
    halves_to_floats,
    load_from,
    mask_bits,
    shift_right,
    splat_i32,
    store_to,
)
from sparity_edge.kernels.simd.vectors import vector

_SIXTEEN_BYTES, _SIXTEEN_SHORTS = ir.VectorType(I8, LANES), ir.VectorType(I16, LANES)


# --- int8 -------------------------------------------------------------------------------------


@define(vector, types.int64)
def load_i8(builder: Any, address: Any) -> Any:
    """Sixteen signed bytes as float32."""
    numbers = load_from(builder, address, _SIXTEEN_BYTES)
    return builder.sitofp(builder.sext(numbers, INTEGERS), FLOATS)


@define(types.float32, types.int64)
def load_i8_alone(builder: Any, address: Any) -> Any:
    """The signed byte at an address as float32."""
    return builder.sitofp(builder.sext(load_from(builder, address, I8), I32), F32)


def _to_byte(builder: Any, value: Any) -> Any:
    """Round to nearest even, into -127..127; NaN becomes -127, never undefined."""
    vectors = isinstance(value.type, ir.VectorType)
    low, high = (constant(FLOATS, x) if vectors else F32(x) for x in (-127.0, 127.0))
    value = call_llvm(builder, "rint", value)
    value = builder.select(builder.fcmp_ordered("<", low, value), value, low)
    value = builder.select(builder.fcmp_ordered("<", value, high), value, high)
    wide, byte = (INTEGERS, _SIXTEEN_BYTES) if vectors else (I32, I8)
    return builder.trunc(builder.fptosi(value, wide), byte)


@define(types.none, types.int64, vector)
def store_i8(builder: Any, address: Any, value: Any) -> Any:
    """Write sixteen float32 as signed bytes (see `_to_byte`)."""
    store_to(builder, _to_byte(builder, value), address)


@define(types.none, types.int64, types.float32)
def store_i8_alone(builder: Any, address: Any, value: Any) -> Any:
    """Write a float32 as a signed byte (see `_to_byte`)."""
    store_to(builder, _to_byte(builder, value), address)


# --- nibbles ----------------------------------------------------------------------------------


@define(vector, types.int64)
def load_low(builder: Any, address: Any) -> Any:
    """The low nibbles of sixteen bytes as float32."""
    nibbles = mask_bits(builder, load_from(builder, address, _SIXTEEN_BYTES), 15)
    return builder.sitofp(builder.zext(nibbles, INTEGERS), FLOATS)


@define(vector, types.int64)
def load_high(builder: Any, address: Any) -> Any:
    """The high nibbles of sixteen bytes as float32."""
    nibbles = shift_right(builder, load_from(builder, address, _SIXTEEN_BYTES), 4)
    return builder.sitofp(builder.zext(nibbles, INTEGERS), FLOATS)


# --- bfloat16 ---------------------------------------------------------------------------------


def load_bf16_from(builder: Any, address: Any) -> Any:
    """IR of sixteen bfloat16 as float32."""
    halves = builder.zext(load_from(builder, address, _SIXTEEN_SHORTS), INTEGERS)
    return builder.bitcast(builder.shl(halves, constant(INTEGERS, 16)), FLOATS)


@define(vector, types.int64)
def load_bf16(builder: Any, address: Any) -> Any:
    """Sixteen bfloat16 as float32."""
    return load_bf16_from(builder, address)


@define(types.float32, types.int64)
def load_bf16_alone(builder: Any, address: Any) -> Any:
    """The bfloat16 at an address as float32."""
    bits = builder.zext(load_from(builder, address, I16), I32)
    return builder.bitcast(builder.shl(bits, I32(16)), F32)


@define(types.none, types.int64, vector)
def store_bf16(builder: Any, address: Any, value: Any) -> Any:
    """Write sixteen float32 as bfloat16, rounded to nearest even."""
    bits = builder.bitcast(value, INTEGERS)
    odd = mask_bits(builder, shift_right(builder, bits, 16), 1)
    nearest = builder.add(builder.add(bits, odd), constant(INTEGERS, 0x7FFF))
    store_to(builder, builder.trunc(shift_right(builder, nearest, 16), _SIXTEEN_SHORTS), address)


@define(types.none, types.int64, types.float32)
def store_bf16_alone(builder: Any, address: Any, value: Any) -> Any:
    """Write a float32 as bfloat16, rounded to nearest even."""
    bits = builder.bitcast(value, I32)
    odd = builder.and_(builder.lshr(bits, I32(16)), I32(1))
    nearest = builder.add(builder.add(bits, odd), I32(0x7FFF))
    store_to(builder, builder.trunc(builder.lshr(nearest, I32(16)), I16), address)


# --- float16 ----------------------------------------------------------------------------------


@define(vector, types.int64, types.int64)
def load_f16(builder: Any, address: Any, count: Any) -> Any:
    """Up to sixteen finite float16 as float32; lanes from `count` on are zero whatever is there.

    Always reads 32 bytes.
    """
    bits = load_from(builder, address, _SIXTEEN_SHORTS)
    wanted = builder.icmp_signed("<", LANE_NUMBERS, splat_i32(builder, count))
    return builder.select(wanted, halves_to_floats(builder, bits), constant(FLOATS, 0.0))
