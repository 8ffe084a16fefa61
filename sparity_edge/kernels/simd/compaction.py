"""Lanes that pass a test, stored without gaps: what selections are made of.

With AVX-512 a register is compressed and stored whole, which may overwrite fifteen numbers behind
the last one kept (compressing straight to memory is microcode on Zen: 10 times slower). Elsewhere
each lane is stored and the place moves on only if it counts, so there is no branch to guess wrong.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from sparity_edge.kernels.simd.bytewise import integer_vector
from sparity_edge.kernels.simd.cpu import features
from sparity_edge.kernels.simd.intrinsics import I16, I32, I64, at, define, load_unaligned
from sparity_edge.kernels.simd.vectors import vector

_INTEGERS = ir.VectorType(I32, 16)
_MASK = ir.VectorType(ir.IntType(1), 16)
_LANES = ir.Constant(_INTEGERS, list(range(16)))


def _all(builder: Any, value: Any) -> Any:
    """An int32 in every lane."""
    first = builder.insert_element(ir.Constant(_INTEGERS, ir.Undefined), value, I32(0))
    return builder.shuffle_vector(first, first, ir.Constant(_INTEGERS, [0] * 16))


def _below(builder: Any, count: Any) -> Any:
    """Which lanes come before `count`, an int64."""
    return builder.icmp_signed("<", _LANES, _all(builder, builder.trunc(count, I32)))


def _magnitude(builder: Any, value: Any) -> Any:
    bits = builder.bitcast(value, _INTEGERS)
    return builder.and_(bits, ir.Constant(_INTEGERS, [0x7FFFFFFF] * 16))


def _count(builder: Any, mask: Any) -> Any:
    ones = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(I16, [I16]), "llvm.ctpop.i16"
    )
    return builder.zext(builder.call(ones, [builder.bitcast(mask, I16)]), I64)


def _append(builder: Any, address: Any, values: Any, mask: Any) -> Any:
    """Store the lanes of `values` that are in the mask from `address` on; returns how many."""
    if "avx512f" in features():
        compress = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(_INTEGERS, [_INTEGERS, _INTEGERS, _MASK]),
            "llvm.x86.avx512.mask.compress.v16i32",
        )
        dense = builder.call(compress, [values, ir.Constant(_INTEGERS, [0] * 16), mask])
        builder.store(dense, at(builder, address, _INTEGERS), align=1)
        return _count(builder, mask)
    place = address
    for lane in range(16):
        builder.store(builder.extract_element(values, I32(lane)), at(builder, place, I32), align=1)
        keep = builder.zext(builder.extract_element(mask, I32(lane)), I64)
        place = builder.add(place, builder.shl(keep, I64(2)))
    return builder.lshr(builder.sub(place, address), I64(2))


def _indices(builder: Any, first: Any) -> Any:
    return builder.add(_LANES, _all(builder, builder.trunc(first, I32)))


@define(types.int64, types.int64, types.int64, vector, vector, types.int64)
def append_above(
    builder: Any, address: Any, first: Any, value: Any, threshold: Any, count: Any
) -> Any:
    """Store first + lane for those of `count` lanes that have |value| > threshold or a NaN.

    Returns:
        How many were stored.
    """
    size = builder.bitcast(_magnitude(builder, value), value.type)
    above = builder.fcmp_unordered(">", size, threshold)
    mask = builder.and_(above, _below(builder, count))
    return _append(builder, address, _indices(builder, first), mask)


@define(integer_vector, types.int64)
def load_integers(builder: Any, address: Any) -> Any:
    """Sixteen int32."""
    return load_unaligned(builder, address, _INTEGERS)


@define(types.none, types.int64, vector)
def store_magnitude(builder: Any, address: Any, value: Any) -> Any:
    """Write the bits of |value|: integers that are ordered as the magnitudes, NaN the largest."""
    builder.store(_magnitude(builder, value), at(builder, address, _INTEGERS), align=1)


@define(types.int64, integer_vector, types.int64, types.int64)
def count_at_least(builder: Any, value: Any, least: Any, count: Any) -> Any:
    """How many of the first `count` lanes are at least `least`."""
    large = builder.icmp_signed(">=", value, _all(builder, builder.trunc(least, I32)))
    return _count(builder, builder.and_(large, _below(builder, count)))


@define(types.int64, types.int64, integer_vector, types.int64, types.int64, types.int64)
def append_between(
    builder: Any, address: Any, value: Any, least: Any, most: Any, count: Any
) -> Any:
    """Store those of the first `count` lanes that lie in least..most; returns how many."""
    low = builder.icmp_signed(">=", value, _all(builder, builder.trunc(least, I32)))
    high = builder.icmp_signed("<=", value, _all(builder, builder.trunc(most, I32)))
    mask = builder.and_(builder.and_(low, high), _below(builder, count))
    return _append(builder, address, value, mask)


@define(types.int64, types.int64, types.int64, integer_vector, types.int64, types.int64)
def append_at_least(
    builder: Any, address: Any, first: Any, value: Any, least: Any, count: Any
) -> Any:
    """Store first + lane for those of `count` lanes that are at least `least`; returns how many."""
    large = builder.icmp_signed(">=", value, _all(builder, builder.trunc(least, I32)))
    mask = builder.and_(large, _below(builder, count))
    return _append(builder, address, _indices(builder, first), mask)


@define(types.int64, types.int64, types.int64, integer_vector, types.int64, types.int64)
def append_largest(
    builder: Any, address: Any, first: Any, value: Any, kept: Any, count: Any
) -> Any:
    """Store first + lane for the `kept` largest of the first `count` lanes, of equals the first.

    Every lane is compared with every other: its rank is how many go before it.

    Returns:
        How many were stored.
    """
    inside = _below(builder, count)
    value = builder.select(inside, value, ir.Constant(_INTEGERS, [0] * 16))
    rank: Any = ir.Constant(_INTEGERS, [0] * 16)
    for lane in range(16):
        other = builder.shuffle_vector(value, value, ir.Constant(_INTEGERS, [lane] * 16))
        # Behind it, equals count as smaller: bits of magnitudes, so one more does not overflow.
        least = builder.add(other, ir.Constant(_INTEGERS, [int(i > lane) for i in range(16)]))
        before = builder.icmp_unsigned(">", least, value)
        rank = builder.sub(rank, builder.sext(before, _INTEGERS))
    wanted = builder.icmp_signed("<", rank, _all(builder, builder.trunc(kept, I32)))
    return _append(builder, address, _indices(builder, first), builder.and_(wanted, inside))


@define(types.int64, vector)
def largest_magnitude(builder: Any, value: Any) -> Any:
    """The bits of the largest |lane|, NaN the largest."""
    result = _magnitude(builder, value)
    for width in (8, 4, 2, 1):
        order = ir.Constant(_INTEGERS, [(i + width) % 16 for i in range(16)])
        other = builder.shuffle_vector(result, result, order)
        larger = builder.icmp_signed(">", other, result)
        result = builder.select(larger, other, result)
    return builder.sext(builder.extract_element(result, I32(0)), I64)


@define(types.int64, types.int64)
def load_i32(builder: Any, address: Any) -> Any:
    """The int32 at an address."""
    return builder.sext(load_unaligned(builder, address, I32), I64)


@define(types.none, types.int64, types.int64)
def store_i32(builder: Any, address: Any, value: Any) -> Any:
    """Write the low half of an int64."""
    builder.store(builder.trunc(value, I32), at(builder, address, I32), align=1)


@define(types.none, types.int64, types.int64)
def store_i64(builder: Any, address: Any, value: Any) -> Any:
    """Write an int64."""
    builder.store(value, at(builder, address, I64), align=1)
