"""Stream compaction: lanes that pass a mask, stored densely; what selections are made of.

    value     5   9   1   7   ...        threshold 4
    mask      1   1   0   1   ...
    stored    first + 0, first + 1, first + 3, ...     int32 indices of lanes, without gaps

With AVX-512 a register is compressed and stored whole, which may overwrite fifteen numbers after
the last one kept (compressing straight to memory is microcode on Zen: 10 times slower). Elsewhere
each lane is stored and the place moves on only if it counts, so there is no branch to mispredict.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from sparity_edge.kernels.simd.cpu import features
from sparity_edge.kernels.simd.ir import (
    I16,
    I32,
    I64,
    INTEGERS,
    LANE_NUMBERS,
    constant,
    define,
    mask_bits,
    shuffle,
    splat_i32,
    store_to,
)
from sparity_edge.kernels.simd.vectors import integer_vector, vector

_MASK = ir.VectorType(ir.IntType(1), 16)


def _below(builder: Any, count: Any) -> Any:
    """Which lanes come before `count`, an int64."""
    return builder.icmp_signed("<", LANE_NUMBERS, splat_i32(builder, count))


def _magnitude(builder: Any, value: Any) -> Any:
    """The bits of |value|: integers in the order of the magnitudes, NaN the largest."""
    return mask_bits(builder, builder.bitcast(value, INTEGERS), 0x7FFFFFFF)


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
            ir.FunctionType(INTEGERS, [INTEGERS, INTEGERS, _MASK]),
            "llvm.x86.avx512.mask.compress.v16i32",
        )
        dense = builder.call(compress, [values, constant(INTEGERS, 0), mask])
        store_to(builder, dense, address)
        return _count(builder, mask)
    place = address
    for lane in range(16):
        store_to(builder, builder.extract_element(values, I32(lane)), place)
        keep = builder.zext(builder.extract_element(mask, I32(lane)), I64)
        place = builder.add(place, builder.shl(keep, I64(2)))
    return builder.lshr(builder.sub(place, address), I64(2))


def _indices(builder: Any, first: Any) -> Any:
    return builder.add(LANE_NUMBERS, splat_i32(builder, first))


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


@define(types.int64, types.int64, types.int64, vector, vector, types.int64)
def append_not_below(
    builder: Any, address: Any, first: Any, value: Any, limit: Any, count: Any
) -> Any:
    """Store first + lane for those of `count` lanes that are not below the limit, or either is NaN.

    Returns:
        How many were stored.
    """
    above = builder.fcmp_unordered(">=", value, limit)
    mask = builder.and_(above, _below(builder, count))
    return _append(builder, address, _indices(builder, first), mask)


@define(types.none, types.int64, vector)
def store_ordered(builder: Any, address: Any, value: Any) -> Any:
    """Write integers from 0 on that are ordered as the numbers, whose last bit is lost."""
    bits = builder.bitcast(value, INTEGERS)
    negative = builder.ashr(bits, constant(INTEGERS, 31))
    ordered = builder.xor(bits, mask_bits(builder, negative, 0x7FFFFFFF))
    half = builder.ashr(ordered, constant(INTEGERS, 1))
    store_to(builder, builder.add(half, constant(INTEGERS, 1 << 30)), address)


@define(types.none, types.int64, vector)
def store_magnitude(builder: Any, address: Any, value: Any) -> Any:
    """Write the bits of |value|: integers that are ordered as the magnitudes, NaN the largest."""
    store_to(builder, _magnitude(builder, value), address)


@define(types.int64, integer_vector, types.int64, types.int64)
def count_at_least(builder: Any, value: Any, least: Any, count: Any) -> Any:
    """How many of the first `count` lanes are at least `least`."""
    large = builder.icmp_signed(">=", value, splat_i32(builder, least))
    return _count(builder, builder.and_(large, _below(builder, count)))


@define(types.int64, types.int64, integer_vector, types.int64, types.int64, types.int64)
def append_between(
    builder: Any, address: Any, value: Any, least: Any, most: Any, count: Any
) -> Any:
    """Store those of the first `count` lanes that lie in least..most; returns how many."""
    low = builder.icmp_signed(">=", value, splat_i32(builder, least))
    high = builder.icmp_signed("<=", value, splat_i32(builder, most))
    mask = builder.and_(builder.and_(low, high), _below(builder, count))
    return _append(builder, address, value, mask)


@define(types.int64, types.int64, types.int64, integer_vector, types.int64, types.int64)
def append_at_least(
    builder: Any, address: Any, first: Any, value: Any, least: Any, count: Any
) -> Any:
    """Store first + lane for those of `count` lanes that are at least `least`; returns how many."""
    large = builder.icmp_signed(">=", value, splat_i32(builder, least))
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
    value = builder.select(inside, value, constant(INTEGERS, 0))
    rank: Any = constant(INTEGERS, 0)
    for lane in range(16):
        other = shuffle(builder, value, value, [lane] * 16)
        # In lanes after it equals count as smaller: bits of magnitudes, so + 1 does not overflow.
        least = builder.add(other, ir.Constant(INTEGERS, [int(i > lane) for i in range(16)]))
        before = builder.icmp_unsigned(">", least, value)
        rank = builder.sub(rank, builder.sext(before, INTEGERS))
    wanted = builder.icmp_signed("<", rank, splat_i32(builder, kept))
    return _append(builder, address, _indices(builder, first), builder.and_(wanted, inside))


@define(types.int64, vector)
def largest_magnitude(builder: Any, value: Any) -> Any:
    """The bits of the largest |lane|, NaN the largest."""
    result = _magnitude(builder, value)
    for width in (8, 4, 2, 1):
        other = shuffle(builder, result, result, [(i + width) % 16 for i in range(16)])
        larger = builder.icmp_signed(">", other, result)
        result = builder.select(larger, other, result)
    return builder.sext(builder.extract_element(result, I32(0)), I64)
