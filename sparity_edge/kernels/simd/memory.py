"""Loads and stores of numbers as they are: float32, int32, int64, bytes.

An address is an int64 count of bytes and need not be aligned. Vectors are sixteen lanes; a store of
one writes 64 bytes, whatever lies there.
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from sparity_edge.kernels.simd.ir import (
    BYTES,
    F32,
    FLOATS,
    I32,
    I64,
    INTEGERS,
    define,
    load_from,
    splat,
    store_to,
)
from sparity_edge.kernels.simd.vectors import byte_vector, integer_vector, vector


@define(vector, types.int64)
def load(builder: Any, address: Any) -> Any:
    """Sixteen float32."""
    return load_from(builder, address, FLOATS)


@define(types.none, types.int64, vector)
def store(builder: Any, address: Any, value: Any) -> Any:
    """Write sixteen float32."""
    store_to(builder, value, address)


@define(vector, types.int64)
def load_splat(builder: Any, address: Any) -> Any:
    """The float32 at an address in every lane."""
    return splat(builder, load_from(builder, address, F32))


@define(integer_vector, types.int64)
def load_integers(builder: Any, address: Any) -> Any:
    """Sixteen int32."""
    return load_from(builder, address, INTEGERS)


@define(byte_vector, types.int64)
def load_bytes(builder: Any, address: Any) -> Any:
    """Sixty-four bytes."""
    return load_from(builder, address, BYTES)


@define(types.float32, types.int64)
def load_f32(builder: Any, address: Any) -> Any:
    """The float32 at an address."""
    return load_from(builder, address, F32)


@define(types.none, types.int64, types.float32)
def store_f32(builder: Any, address: Any, value: Any) -> Any:
    """Write a float32."""
    store_to(builder, value, address)


@define(types.int64, types.int64)
def load_i64(builder: Any, address: Any) -> Any:
    """The int64 at an address."""
    return load_from(builder, address, I64)


@define(types.none, types.int64, types.int64)
def store_i64(builder: Any, address: Any, value: Any) -> Any:
    """Write an int64."""
    store_to(builder, value, address)


@define(types.int64, types.int64)
def load_i32(builder: Any, address: Any) -> Any:
    """The int32 at an address."""
    return builder.sext(load_from(builder, address, I32), I64)


@define(types.none, types.int64, types.int64)
def store_i32(builder: Any, address: Any, value: Any) -> Any:
    """Write the low half of an int64."""
    store_to(builder, builder.trunc(value, I32), address)


@define(types.none, types.int64, types.float32)
def store_whole(builder: Any, address: Any, value: Any) -> Any:
    """Write a float32 that is a whole number as int32."""
    store_to(builder, builder.fptosi(value, I32), address)
