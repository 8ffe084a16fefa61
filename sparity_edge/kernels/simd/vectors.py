"""Vectors of sixteen lanes and the arithmetic of float32: what kernels are written over.

Numba's own vectoriser loses on mixed int8/float32 loops (4 GB/s where memory gives 30), so kernels
take vectors and raw addresses, and LLVM lowers the same code to AVX-512, AVX2, SSE or NEON. Every
function here is one intrinsic and works inside compiled code only. `memory`, `conversions` and
`prefetch` are about addresses; nothing here knows what is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.ir import (
    BYTES,
    FLOATS,
    I32,
    INTEGERS,
    LANE_NUMBERS,
    LANES,
    LLVMType,
    call_llvm,
    constant,
    define,
    multiply_add,
    shuffle,
    splat_i32,
    struct_type,
)
from sparity_edge.kernels.simd.ir import splat as emit_splat

vector = LLVMType("f32x16", FLOATS)
integer_vector = LLVMType("i32x16", INTEGERS)
byte_vector = LLVMType("i8x64", BYTES)  # signed or not is the operation's affair


def tile_type(rows: int, columns: int) -> LLVMType:
    """A register block of rows x columns vectors: the accumulators of a small matrix product."""
    return struct_type(f"tile{rows}x{columns}", FLOATS, rows * columns)


@define(vector, types.float32)
def splat(builder: Any, value: Any) -> Any:
    """One number in every lane."""
    return emit_splat(builder, value)


@define(vector, vector, vector)
def add(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane left + right."""
    return builder.fadd(left, right)


@define(vector, vector, vector)
def sub(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane left - right."""
    return builder.fsub(left, right)


@define(vector, vector, vector)
def mul(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane left * right."""
    return builder.fmul(left, right)


@define(vector, vector, vector)
def div(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane left / right."""
    return builder.fdiv(left, right)


@define(vector, vector, vector)
def maximum(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane the larger; `left` where one of the two is NaN."""
    return _larger(builder, left, right)


@define(vector, vector, vector)
def above(builder: Any, value: Any, limit: Any) -> Any:
    """Lane by lane the value where it is larger than the limit or NaN, and zero elsewhere."""
    larger = builder.fcmp_unordered(">", value, limit)
    return builder.select(larger, value, constant(FLOATS, 0.0))


@define(vector, vector, vector, vector)
def fma(builder: Any, left: Any, right: Any, addend: Any) -> Any:
    """left * right + addend, in one rounding where the CPU can (no library call elsewhere)."""
    return multiply_add(builder, left, right, addend)


@define(vector, vector)
def rounded(builder: Any, value: Any) -> Any:
    """Each lane rounded to the nearest whole number, halves to even."""
    return call_llvm(builder, "rint", value)


@define(vector, vector, types.int64, types.int64)
def keep_lanes(builder: Any, value: Any, first: Any, last: Any) -> Any:
    """Lanes first..last-1; the others become -inf."""
    first, last = splat_i32(builder, first), splat_i32(builder, last)
    late_enough = builder.icmp_signed(">=", LANE_NUMBERS, first)
    wanted = builder.and_(late_enough, builder.icmp_signed("<", LANE_NUMBERS, last))
    return builder.select(wanted, value, constant(FLOATS, float("-inf")))


def _larger(builder: Any, left: Any, right: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", left, right), right, left)


def _reduce(builder: Any, value: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Halve the vector four times: always the same order, so always the same bits."""
    width = LANES
    while width > 1:
        width //= 2
        low = shuffle(builder, value, value, range(width))
        high = shuffle(builder, value, value, range(width, 2 * width))
        value = combine(low, high)
    return builder.extract_element(value, I32(0))


@define(types.float32, vector)
def total(builder: Any, value: Any) -> Any:
    """The sum of the sixteen lanes."""
    return _reduce(builder, value, builder.fadd)


@define(types.float32, vector)
def largest(builder: Any, value: Any) -> Any:
    """The largest of the sixteen lanes."""
    return _reduce(builder, value, lambda left, right: _larger(builder, left, right))


def _repeat(times: int) -> Any:
    @define(vector, vector)
    def repeat(builder: Any, value: Any) -> Any:
        """The first lanes, each several times: 0 0 1 1 ... or 0 0 0 0 1 1 1 1 ..."""
        return shuffle(builder, value, value, [lane // times for lane in range(LANES)])

    return repeat


repeat2, repeat4 = _repeat(2), _repeat(4)


@define(vector, vector)
def exp(builder: Any, value: Any) -> Any:
    """e to the power of each lane, within 2 units in the last place; 0 below -87.3, inf above 88.7.

    Reduces to r in [-ln 2 / 2, ln 2 / 2] and takes a Taylor polynomial of degree 7, whose first
    dropped term is r**8 / 8! = 5e-9.
    """
    log2e, ln2_high, ln2_low = 1.4426950408889634, 0.693359375, -2.12194440e-4
    low = builder.fcmp_ordered("<", value, _floats(-87.3))
    high = builder.fcmp_ordered(">", value, _floats(88.7))
    inside = builder.select(builder.or_(low, high), _floats(0.0), value)
    n = call_llvm(builder, "rint", builder.fmul(inside, _floats(log2e)))
    r = multiply_add(builder, n, _floats(-ln2_high), inside)
    r = multiply_add(builder, n, _floats(-ln2_low), r)
    result = _floats(1.0 / 5040)
    for denominator in (720, 120, 24, 6, 2, 1, 1):
        result = multiply_add(builder, result, r, _floats(1.0 / denominator))
    # Two steps of 2**(n/2) keep the exponent in range up to the very ends.
    whole = builder.fptosi(n, INTEGERS)
    half = builder.ashr(whole, constant(INTEGERS, 1))
    for part in (half, builder.sub(whole, half)):
        bits = builder.shl(builder.add(part, constant(INTEGERS, 127)), constant(INTEGERS, 23))
        result = builder.fmul(result, builder.bitcast(bits, FLOATS))
    result = builder.select(low, _floats(0.0), result)
    return builder.select(high, _floats(float("inf")), result)


def _floats(value: float) -> ir.Constant:
    return constant(FLOATS, value)
