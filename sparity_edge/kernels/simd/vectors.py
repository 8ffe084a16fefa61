"""Vectors and memory for Numba kernels: LLVM vectors behind plain function names.

Numba's own vectoriser loses on mixed int8/float32 loops (4 GB/s where memory gives 30), so kernels
are written over sixteen float32 lanes and raw addresses, and LLVM lowers the same code to AVX-512,
AVX2, SSE or NEON. Every function here is one intrinsic and works inside compiled code only; an
address is an int64 count of bytes and need not be aligned. Nothing here knows what is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import models, register_model

from sparity_edge.kernels.simd.cpu import features
from sparity_edge.kernels.simd.intrinsics import F32, I8, I16, I32, I64, at, define, load_unaligned

LANES = 16

_VECTOR = ir.VectorType(F32, LANES)


def _lanes(element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, LANES)


class Vector(types.Type):
    """Sixteen float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name="f32x16")


vector = Vector()


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


class Tile(types.Type):
    """A rows x columns block of vectors: the accumulators of a small matrix product."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows = rows
        self.columns = columns
        super().__init__(name=f"tile{rows}x{columns}")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        block = ir.LiteralStructType([_VECTOR] * (fe_type.rows * fe_type.columns))
        super().__init__(dmm, fe_type, block)


def _splat(builder: Any, value: Any) -> Any:
    vector_type = _lanes(value.type)
    first = builder.insert_element(ir.Constant(vector_type, ir.Undefined), value, I32(0))
    mask = ir.Constant(_lanes(I32), [0] * LANES)
    return builder.shuffle_vector(first, first, mask)


def _constant(element: ir.Type, value: float) -> ir.Constant:
    return ir.Constant(_lanes(element), [value] * LANES)


def call_llvm(builder: Any, name: str, *values: Any) -> Any:
    """Call an LLVM intrinsic whose operands and result share one type."""
    kind = values[0].type
    signature = ir.FunctionType(kind, [kind] * len(values))
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    suffix = "f32" if element == F32 else str(element)
    prefix = f"v{LANES}" if isinstance(kind, ir.VectorType) else ""
    function = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.{name}.{prefix}{suffix}"
    )
    return builder.call(function, values)


# --- memory ---------------------------------------------------------------------------------


@define(types.int64, types.int64)
def load_i64(builder: Any, address: Any) -> Any:
    """The int64 at an address."""
    return load_unaligned(builder, address, I64)


@define(types.float32, types.int64)
def load_f32(builder: Any, address: Any) -> Any:
    """The float32 at an address."""
    return load_unaligned(builder, address, F32)


@define(types.none, types.int64, types.float32)
def store_f32(builder: Any, address: Any, value: Any) -> Any:
    """Write a float32."""
    builder.store(value, at(builder, address, F32), align=1)


@define(vector, types.int64)
def load(builder: Any, address: Any) -> Any:
    """Sixteen float32."""
    return load_unaligned(builder, address, _VECTOR)


@define(types.none, types.int64, vector)
def store(builder: Any, address: Any, value: Any) -> Any:
    """Write sixteen float32."""
    builder.store(value, at(builder, address, _VECTOR), align=1)


@define(vector, types.int64)
def load_i8(builder: Any, address: Any) -> Any:
    """Sixteen signed bytes as float32."""
    numbers = load_unaligned(builder, address, _lanes(I8))
    return builder.sitofp(builder.sext(numbers, _lanes(I32)), _VECTOR)


@define(types.float32, types.int64)
def load_i8_alone(builder: Any, address: Any) -> Any:
    """The signed byte at an address as float32."""
    return builder.sitofp(builder.sext(load_unaligned(builder, address, I8), I32), F32)


def _to_byte(builder: Any, value: Any) -> Any:
    """Round to nearest even, into -127..127; what is no number becomes -127, never undefined."""
    vectors = isinstance(value.type, ir.VectorType)
    low, high = (_constant(F32, x) if vectors else F32(x) for x in (-127.0, 127.0))
    value = call_llvm(builder, "rint", value)
    value = builder.select(builder.fcmp_ordered("<", low, value), value, low)
    value = builder.select(builder.fcmp_ordered("<", value, high), value, high)
    wide, byte = (_lanes(I32), _lanes(I8)) if vectors else (I32, I8)
    return builder.trunc(builder.fptosi(value, wide), byte)


@define(types.none, types.int64, vector)
def store_i8(builder: Any, address: Any, value: Any) -> Any:
    """Write sixteen float32 as signed bytes (see `_to_byte`)."""
    numbers = _to_byte(builder, value)
    builder.store(numbers, at(builder, address, numbers.type), align=1)


@define(types.none, types.int64, types.float32)
def store_i8_alone(builder: Any, address: Any, value: Any) -> Any:
    """Write a float32 as a signed byte (see `_to_byte`)."""
    builder.store(_to_byte(builder, value), at(builder, address, I8), align=1)


@define(vector, types.int64)
def load_low(builder: Any, address: Any) -> Any:
    """The low nibbles of sixteen bytes as float32."""
    nibbles = builder.and_(load_unaligned(builder, address, _lanes(I8)), _constant(I8, 15))
    return builder.sitofp(builder.zext(nibbles, _lanes(I32)), _VECTOR)


@define(vector, types.int64)
def load_high(builder: Any, address: Any) -> Any:
    """The high nibbles of sixteen bytes as float32."""
    nibbles = builder.lshr(load_unaligned(builder, address, _lanes(I8)), _constant(I8, 4))
    return builder.sitofp(builder.zext(nibbles, _lanes(I32)), _VECTOR)


@define(vector, types.int64)
def load_bf16(builder: Any, address: Any) -> Any:
    """Sixteen bfloat16 as float32."""
    halves = builder.zext(load_unaligned(builder, address, _lanes(I16)), _lanes(I32))
    return builder.bitcast(builder.shl(halves, _constant(I32, 16)), _VECTOR)


@define(types.float32, types.int64)
def load_bf16_alone(builder: Any, address: Any) -> Any:
    """The bfloat16 at an address as float32."""
    bits = builder.zext(load_unaligned(builder, address, I16), I32)
    return builder.bitcast(builder.shl(bits, I32(16)), F32)


@define(types.none, types.int64, vector)
def store_bf16(builder: Any, address: Any, value: Any) -> Any:
    """Write sixteen float32 as bfloat16, rounded to nearest even."""
    bits = builder.bitcast(value, _lanes(I32))
    odd = builder.and_(builder.lshr(bits, _constant(I32, 16)), _constant(I32, 1))
    rounded = builder.add(builder.add(bits, odd), _constant(I32, 0x7FFF))
    halves = builder.trunc(builder.lshr(rounded, _constant(I32, 16)), _lanes(I16))
    builder.store(halves, at(builder, address, halves.type), align=1)


@define(types.none, types.int64, types.float32)
def store_bf16_alone(builder: Any, address: Any, value: Any) -> Any:
    """Write a float32 as bfloat16, rounded to nearest even."""
    bits = builder.bitcast(value, I32)
    odd = builder.and_(builder.lshr(bits, I32(16)), I32(1))
    rounded = builder.add(builder.add(bits, odd), I32(0x7FFF))
    half = builder.trunc(builder.lshr(rounded, I32(16)), I16)
    builder.store(half, at(builder, address, I16), align=1)


def _half_to_float(builder: Any, bits: Any) -> Any:
    """IEEE half to float32 in integer arithmetic, exact for every finite value.

    `fpext half` would become a library call on CPUs without F16C, which no JIT resolves.
    """
    wide = _lanes(I32)
    magnitude = builder.shl(builder.and_(bits, _constant(I32, 0x7FFF)), _constant(I32, 13))
    scaled = builder.fmul(builder.bitcast(magnitude, _VECTOR), _constant(F32, 2.0**112))
    sign = builder.shl(builder.and_(bits, _constant(I32, 0x8000)), _constant(I32, 16))
    return builder.bitcast(builder.or_(builder.bitcast(scaled, wide), sign), _VECTOR)


@define(vector, types.int64, types.int64)
def load_f16(builder: Any, address: Any, count: Any) -> Any:
    """Up to sixteen finite float16 as float32; lanes from `count` on are zero whatever is there.

    Always reads 32 bytes.
    """
    bits = load_unaligned(builder, address, _lanes(I16))
    lanes = ir.Constant(_lanes(I32), list(range(LANES)))
    wanted = builder.icmp_signed("<", lanes, _splat(builder, builder.trunc(count, I32)))
    if "f16c" in features():
        halves = builder.bitcast(bits, _lanes(ir.HalfType()))
        values = builder.fpext(halves, _VECTOR)
    else:
        values = _half_to_float(builder, builder.zext(bits, _lanes(I32)))
    return builder.select(wanted, values, _constant(F32, 0.0))


# How near, and whether what is pushed out of L1 later is to go into L2.
ONCE, L2, L1 = 0, 2, 3


def ask_for(builder: Any, address: Any, level: int) -> None:
    """Ask for the cache line at an address; any address will do."""
    pointer = at(builder, address, I8)
    signature = ir.FunctionType(ir.VoidType(), [pointer.type, I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0")
    read, data = I32(0), I32(1)
    builder.call(function, [pointer, read, I32(level), data])


@define(types.none, types.int64)
def prefetch(builder: Any, address: Any) -> Any:
    """Ask for the cache line at an address, into L2."""
    ask_for(builder, address, L2)


@define(types.none, types.int64)
def prefetch_near(builder: Any, address: Any) -> Any:
    """The same into L1 as well."""
    ask_for(builder, address, L1)


@define(types.none, types.int64)
def prefetch_once(builder: Any, address: Any) -> Any:
    """Ask for a line that will be used once: into L1, and from there it is dropped.

    Weights that move on to L2 and L3 cost a slow memory 5 to 7 % of its speed (Zen 5).
    """
    ask_for(builder, address, ONCE)


# --- arithmetic -----------------------------------------------------------------------------


@define(vector, types.float32)
def splat(builder: Any, value: Any) -> Any:
    """The same number in every lane."""
    return _splat(builder, value)


@define(vector, types.int64)
def load_splat(builder: Any, address: Any) -> Any:
    """The float32 at an address in every lane."""
    return _splat(builder, load_unaligned(builder, address, F32))


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
    return builder.select(builder.fcmp_ordered("<", left, right), right, left)


@define(vector, vector, vector, vector)
def fma(builder: Any, left: Any, right: Any, addend: Any) -> Any:
    """left * right + addend, in one rounding where the CPU can (no library call elsewhere)."""
    return call_llvm(builder, "fmuladd", left, right, addend)


def _reduce(builder: Any, value: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Halve the vector four times: always the same order, so always the same bits."""
    width = LANES
    while width > 1:
        width //= 2
        lanes = ir.VectorType(I32, width)
        low = builder.shuffle_vector(value, value, ir.Constant(lanes, list(range(width))))
        high = builder.shuffle_vector(
            value, value, ir.Constant(lanes, list(range(width, 2 * width)))
        )
        value = combine(low, high)
    return builder.extract_element(value, I32(0))


@define(types.float32, vector)
def total(builder: Any, value: Any) -> Any:
    """The sum of the sixteen lanes."""
    return _reduce(builder, value, builder.fadd)


@define(types.float32, vector)
def largest(builder: Any, value: Any) -> Any:
    """The largest of the sixteen lanes."""

    def larger(left: Any, right: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", left, right), right, left)

    return _reduce(builder, value, larger)


@define(vector, vector)
def exp(builder: Any, value: Any) -> Any:
    """e to the power of each lane, within 2 units in the last place; 0 below -87.3, inf above 88.7.

    Reduces to r in [-ln 2 / 2, ln 2 / 2] and takes a Taylor polynomial of degree 7, whose first
    dropped term is r**8 / 8! = 5e-9.
    """
    log2e, ln2_high, ln2_low = 1.4426950408889634, 0.693359375, -2.12194440e-4
    low = builder.fcmp_ordered("<", value, _constant(F32, -87.3))
    high = builder.fcmp_ordered(">", value, _constant(F32, 88.7))
    inside = builder.select(builder.or_(low, high), _constant(F32, 0.0), value)
    n = call_llvm(builder, "rint", builder.fmul(inside, _constant(F32, log2e)))
    r = call_llvm(builder, "fmuladd", n, _constant(F32, -ln2_high), inside)
    r = call_llvm(builder, "fmuladd", n, _constant(F32, -ln2_low), r)
    result = _constant(F32, 1.0 / 5040)
    for denominator in (720, 120, 24, 6, 2, 1, 1):
        result = call_llvm(builder, "fmuladd", result, r, _constant(F32, 1.0 / denominator))
    # Two steps of 2**(n/2) keep the exponent in range up to the very ends.
    whole = builder.fptosi(n, _lanes(I32))
    half = builder.ashr(whole, _constant(I32, 1))
    for part in (half, builder.sub(whole, half)):
        bits = builder.shl(builder.add(part, _constant(I32, 127)), _constant(I32, 23))
        result = builder.fmul(result, builder.bitcast(bits, _VECTOR))
    result = builder.select(low, _constant(F32, 0.0), result)
    return builder.select(high, _constant(F32, float("inf")), result)


def _repeat(times: int) -> Any:
    @define(vector, vector)
    def repeat(builder: Any, value: Any) -> Any:
        """The first lanes, each several times."""
        lanes = [lane // times for lane in range(LANES)]
        return builder.shuffle_vector(value, value, ir.Constant(_lanes(I32), lanes))

    return repeat


repeat2, repeat4 = _repeat(2), _repeat(4)


# --- tiles ----------------------------------------------------------------------------------


def _add_pairs(builder: Any, left: Any, right: Any) -> Any:
    """Sums of neighbouring lanes: eight of left, then eight of right."""
    parts = [
        builder.shuffle_vector(left, right, ir.Constant(_lanes(I32), list(range(odd, 32, 2))))
        for odd in (0, 1)
    ]
    return builder.fadd(*parts)


def _tile_functions(rows: int, columns: int) -> tuple[Any, Any, Any]:
    tile = Tile(rows, columns)
    block = ir.LiteralStructType([_VECTOR] * (rows * columns))

    @define(tile)
    def tile_zero(_builder: Any) -> Any:
        """All lanes zero."""
        return ir.Constant(block, [_constant(F32, 0.0)] * (rows * columns))

    @define(tile, tile, types.int64, types.int64, types.int64, types.int64)
    def tile_step(builder: Any, sums: Any, a: Any, a_stride: Any, b: Any, b_stride: Any) -> Any:
        """sums[i, j] += a[i * a_stride] * b[j * b_stride], sixteen lanes each; strides in bytes."""
        left = [
            load_unaligned(builder, builder.add(a, builder.mul(a_stride, I64(i))), _VECTOR)
            for i in range(rows)
        ]
        for j in range(columns):
            right = load_unaligned(builder, builder.add(b, builder.mul(b_stride, I64(j))), _VECTOR)
            for i in range(rows):
                index = i * columns + j
                old = builder.extract_value(sums, index)
                new = call_llvm(builder, "fmuladd", left[i], right, old)
                sums = builder.insert_value(sums, new, index)
        return sums

    @define(types.none, tile, types.int64)
    def tile_totals(builder: Any, sums: Any, out: Any) -> Any:
        """Write the rows x columns sums over the lanes, row by row; touches 64 bytes in any case.

        All sums are taken together, halving the number of vectors at each step.
        """
        vectors = [builder.extract_value(sums, index) for index in range(rows * columns)]
        assert len(vectors) in (4, 16)
        for _ in range(4):
            right = vectors[1::2] or vectors
            vectors = [_add_pairs(builder, a, b) for a, b in zip(vectors[::2], right)]
        builder.store(vectors[0], at(builder, out, _VECTOR), align=1)

    return tile_zero, tile_step, tile_totals


@define(Tile(4, 1), Tile(4, 1), types.int64, types.int64, types.int64)
def tile4x1_step_bf16(builder: Any, sums: Any, a: Any, stride: Any, b: Any) -> Any:
    """sums[i] += a[i * stride] * b: four rows of sixteen bfloat16 times one of float32."""
    right = load_unaligned(builder, b, _VECTOR)
    for index in range(4):
        row = builder.add(a, builder.mul(stride, I64(index)))
        bits = builder.zext(load_unaligned(builder, row, _lanes(I16)), _lanes(I32))
        left = builder.bitcast(builder.shl(bits, _constant(I32, 16)), _VECTOR)
        new = call_llvm(builder, "fmuladd", left, right, builder.extract_value(sums, index))
        sums = builder.insert_value(sums, new, index)
    return sums


tile4x1_zero, tile4x1_step, tile4x1_totals = _tile_functions(4, 1)
