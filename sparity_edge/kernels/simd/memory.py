"""Loads and stores of numbers as they are, float32, int32, int64, bytes, and prefetches of lines.

An address is an int64 count of bytes and need not be aligned. Vectors are sixteen lanes; a store of
one writes 64 bytes, whatever lies there. A prefetch of what is not mapped does nothing; which
distance and level suit a kernel stands where it prefetches.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from sparity_edge.kernels.simd import bounds  # noqa: F401 - what loads and stores call to be checked
from sparity_edge.kernels.simd.ir import (
    BYTES,
    F32,
    FLOATS,
    I8,
    I32,
    I64,
    INTEGERS,
    define,
    load_from,
    pointer,
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


# --- prefetch -----------------------------------------------------------------------------------

# LLVM's locality: how near, and whether what is evicted from L1 later is to go into L2.
NON_TEMPORAL, L2, L1 = 0, 2, 3


def emit_prefetch(builder: Any, address: Any, level: int) -> None:
    """Prefetch the cache line at an address to one of the levels above."""
    place = pointer(builder, address, I8)
    signature = ir.FunctionType(ir.VoidType(), [place.type, I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    read, data = I32(0), I32(1)
    builder.call(function, [place, read, I32(level), data])


@define(types.none, types.int64)
def prefetch(builder: Any, address: Any) -> Any:
    """Prefetch the cache line at an address into L2."""
    emit_prefetch(builder, address, L2)


@define(types.none, types.int64)
def prefetch_near(builder: Any, address: Any) -> Any:
    """Prefetch the cache line at an address into L1 and L2."""
    emit_prefetch(builder, address, L1)


@define(types.none, types.int64)
def prefetch_non_temporal(builder: Any, address: Any) -> Any:
    """Prefetch a cache line that will be used once: into L1, from where it is dropped.

    Weights that move on to L2 and L3 cost a slow memory 5 to 7 % of its speed (AMD EPYC, Zen 5;
    bench/roofline.py).
    """
    emit_prefetch(builder, address, NON_TEMPORAL)
