"""Vectors and memory for Numba kernels: LLVM vectors behind plain function names.

Numba's own vectoriser loses on mixed int8/float32 loops (4 GB/s where memory gives 30), so kernels
are written over sixteen float32 lanes and raw addresses, and LLVM lowers the same code to AVX-512,
AVX2, SSE or NEON. Every function here is one intrinsic and works inside compiled code only; an
address is an int64 count of bytes and need not be aligned. Nothing here knows what is computed.
"""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

LANES = 16

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F32 = ir.FloatType()
_VECTOR = ir.VectorType(_F32, LANES)


def _lanes(element: ir.Type) -> ir.VectorType:
    return ir.VectorType(element, LANES)


class Vector(types.Type):  # type: ignore[misc]
    """Sixteen float32 lanes."""

    def __init__(self) -> None:
        super().__init__(name="f32x16")


vector = Vector()


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


class Tile(types.Type):  # type: ignore[misc]
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


Emit = Callable[..., Any]


def _define(result: types.Type, *parameters: types.Type) -> Callable[[Emit], Any]:
    """Turn `emit(builder, *values) -> value` into an intrinsic with these types."""

    def wrap(emit: Emit) -> Any:
        def typing(_: Any, *_arguments: Any) -> Any:
            def codegen(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
                value = emit(builder, *values)
                return context.get_dummy_value() if result is types.none else value

            return result(*parameters), codegen

        names = ["typingctx", *(f"argument{index}" for index in range(len(parameters)))]
        # Numba reads the arity off the signature.
        typing.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        )
        typing.__name__ = emit.__name__
        typing.__doc__ = emit.__doc__
        return intrinsic(typing)

    return wrap


def _at(builder: Any, address: Any, element: ir.Type) -> Any:
    return builder.inttoptr(address, element.as_pointer())


def _load(builder: Any, address: Any, element: ir.Type) -> Any:
    """Load without any claim about alignment."""
    return builder.load(_at(builder, address, element), align=1)


def _splat(builder: Any, value: Any) -> Any:
    vector_type = _lanes(value.type)
    first = builder.insert_element(ir.Constant(vector_type, ir.Undefined), value, _I32(0))
    mask = ir.Constant(_lanes(_I32), [0] * LANES)
    return builder.shuffle_vector(first, first, mask)


def _constant(element: ir.Type, value: float) -> ir.Constant:
    return ir.Constant(_lanes(element), [value] * LANES)


def _call(builder: Any, name: str, *values: Any) -> Any:
    """Call an LLVM intrinsic whose operands and result share one type."""
    kind = values[0].type
    signature = ir.FunctionType(kind, [kind] * len(values))
    element = kind.element if isinstance(kind, ir.VectorType) else kind
    suffix = "f32" if element == _F32 else str(element)
    prefix = f"v{LANES}" if isinstance(kind, ir.VectorType) else ""
    function = cgutils.get_or_insert_function(
        builder.module, signature, f"llvm.{name}.{prefix}{suffix}"
    )
    return builder.call(function, values)


# --- memory ---------------------------------------------------------------------------------


@_define(types.int64, types.int64)
def load_i64(builder: Any, address: Any) -> Any:
    """The int64 at an address."""
    return _load(builder, address, _I64)


@_define(types.float32, types.int64)
def load_f32(builder: Any, address: Any) -> Any:
    """The float32 at an address."""
    return _load(builder, address, _F32)


@_define(types.none, types.int64, types.float32)
def store_f32(builder: Any, address: Any, value: Any) -> Any:
    """Write a float32."""
    builder.store(value, _at(builder, address, _F32), align=1)


@_define(vector, types.int64)
def load(builder: Any, address: Any) -> Any:
    """Sixteen float32."""
    return _load(builder, address, _VECTOR)


@_define(types.none, types.int64, vector)
def store(builder: Any, address: Any, value: Any) -> Any:
    """Write sixteen float32."""
    builder.store(value, _at(builder, address, _VECTOR), align=1)


@_define(vector, types.int64)
def load_i8(builder: Any, address: Any) -> Any:
    """Sixteen signed bytes as float32."""
    numbers = _load(builder, address, _lanes(_I8))
    return builder.sitofp(builder.sext(numbers, _lanes(_I32)), _VECTOR)


@_define(vector, types.int64)
def load_low(builder: Any, address: Any) -> Any:
    """The low nibbles of sixteen bytes as float32."""
    nibbles = builder.and_(_load(builder, address, _lanes(_I8)), _constant(_I8, 15))
    return builder.sitofp(builder.zext(nibbles, _lanes(_I32)), _VECTOR)


@_define(vector, types.int64)
def load_high(builder: Any, address: Any) -> Any:
    """The high nibbles of sixteen bytes as float32."""
    nibbles = builder.lshr(_load(builder, address, _lanes(_I8)), _constant(_I8, 4))
    return builder.sitofp(builder.zext(nibbles, _lanes(_I32)), _VECTOR)


@_define(vector, types.int64)
def load_bf16(builder: Any, address: Any) -> Any:
    """Sixteen bfloat16 as float32."""
    halves = builder.zext(_load(builder, address, _lanes(_I16)), _lanes(_I32))
    return builder.bitcast(builder.shl(halves, _constant(_I32, 16)), _VECTOR)


def _half_to_float(builder: Any, bits: Any) -> Any:
    """IEEE half to float32 in integer arithmetic, exact for every finite value.

    `fpext half` would become a library call on CPUs without F16C, which no JIT resolves.
    """
    wide = _lanes(_I32)
    magnitude = builder.shl(builder.and_(bits, _constant(_I32, 0x7FFF)), _constant(_I32, 13))
    scaled = builder.fmul(builder.bitcast(magnitude, _VECTOR), _constant(_F32, 2.0**112))
    sign = builder.shl(builder.and_(bits, _constant(_I32, 0x8000)), _constant(_I32, 16))
    return builder.bitcast(builder.or_(builder.bitcast(scaled, wide), sign), _VECTOR)


@_define(vector, types.int64)
def load_f16(builder: Any, address: Any) -> Any:
    """Sixteen finite float16 as float32."""
    return _half_to_float(builder, builder.zext(_load(builder, address, _lanes(_I16)), _lanes(_I32)))


@_define(types.none, types.int64)
def prefetch(builder: Any, address: Any) -> Any:
    """Ask for the cache line at an address, into L2 (locality 2 of 3)."""
    pointer = _at(builder, address, _I8)
    signature = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
    name = "llvm.prefetch.p0"
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    builder.call(function, [pointer, _I32(0), _I32(2), _I32(1)])


@_define(types.none, types.int64, types.int64, vector)
def scatter(builder: Any, address: Any, stride: Any, value: Any) -> Any:
    """Write lane i as float32 to address + i * stride."""
    for lane in range(LANES):
        place = builder.add(address, builder.mul(stride, _I64(lane)))
        element = builder.extract_element(value, _I32(lane))
        builder.store(element, _at(builder, place, _F32), align=1)


# --- arithmetic -----------------------------------------------------------------------------


@_define(vector, types.float32)
def splat(builder: Any, value: Any) -> Any:
    """The same number in every lane."""
    return _splat(builder, value)


@_define(vector, types.int64)
def load_splat(builder: Any, address: Any) -> Any:
    """The float32 at an address in every lane."""
    return _splat(builder, _load(builder, address, _F32))


@_define(vector, vector, vector)
def add(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane left + right."""
    return builder.fadd(left, right)


@_define(vector, vector, vector)
def sub(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane left - right."""
    return builder.fsub(left, right)


@_define(vector, vector, vector)
def mul(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane left * right."""
    return builder.fmul(left, right)


@_define(vector, vector, vector)
def div(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane left / right."""
    return builder.fdiv(left, right)


@_define(vector, vector, vector)
def maximum(builder: Any, left: Any, right: Any) -> Any:
    """Lane by lane the larger; `left` where one of the two is NaN."""
    return builder.select(builder.fcmp_ordered("<", left, right), right, left)


@_define(vector, vector, vector, vector)
def fma(builder: Any, left: Any, right: Any, addend: Any) -> Any:
    """left * right + addend, in one rounding where the CPU can (no library call elsewhere)."""
    return _call(builder, "fmuladd", left, right, addend)


def _reduce(builder: Any, value: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """Halve the vector four times: always the same order, so always the same bits."""
    width = LANES
    while width > 1:
        width //= 2
        lanes = ir.VectorType(_I32, width)
        low = builder.shuffle_vector(value, value, ir.Constant(lanes, list(range(width))))
        high = builder.shuffle_vector(value, value, ir.Constant(lanes, list(range(width, 2 * width))))
        value = combine(low, high)
    return builder.extract_element(value, _I32(0))


@_define(types.float32, vector)
def total(builder: Any, value: Any) -> Any:
    """The sum of the sixteen lanes."""
    return _reduce(builder, value, builder.fadd)


@_define(types.float32, vector)
def largest(builder: Any, value: Any) -> Any:
    """The largest of the sixteen lanes."""

    def larger(left: Any, right: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", left, right), right, left)

    return _reduce(builder, value, larger)


@_define(vector, vector)
def exp(builder: Any, value: Any) -> Any:
    """e to the power of each lane, within 2 units in the last place; 0 below -87.3, inf above 88.7.

    Reduces to r in [-ln 2 / 2, ln 2 / 2] and takes a Taylor polynomial of degree 7, whose first
    dropped term is r**8 / 8! = 5e-9.
    """
    log2e, ln2_high, ln2_low = 1.4426950408889634, 0.693359375, -2.12194440e-4
    low = builder.fcmp_ordered("<", value, _constant(_F32, -87.3))
    high = builder.fcmp_ordered(">", value, _constant(_F32, 88.7))
    inside = builder.select(builder.or_(low, high), _constant(_F32, 0.0), value)
    n = _call(builder, "rint", builder.fmul(inside, _constant(_F32, log2e)))
    r = _call(builder, "fmuladd", n, _constant(_F32, -ln2_high), inside)
    r = _call(builder, "fmuladd", n, _constant(_F32, -ln2_low), r)
    result = _constant(_F32, 1.0 / 5040)
    for denominator in (720, 120, 24, 6, 2, 1, 1):
        result = _call(builder, "fmuladd", result, r, _constant(_F32, 1.0 / denominator))
    # Two steps of 2**(n/2) keep the exponent in range up to the very ends.
    whole = builder.fptosi(n, _lanes(_I32))
    half = builder.ashr(whole, _constant(_I32, 1))
    for part in (half, builder.sub(whole, half)):
        bits = builder.shl(builder.add(part, _constant(_I32, 127)), _constant(_I32, 23))
        result = builder.fmul(result, builder.bitcast(bits, _VECTOR))
    result = builder.select(low, _constant(_F32, 0.0), result)
    return builder.select(high, _constant(_F32, float("inf")), result)


# --- tiles ----------------------------------------------------------------------------------


def _tile_functions(rows: int, columns: int) -> tuple[Any, Any, Any]:
    tile = Tile(rows, columns)
    block = ir.LiteralStructType([_VECTOR] * (rows * columns))

    @_define(tile)
    def tile_zero(builder: Any) -> Any:
        """All lanes zero."""
        return ir.Constant(block, [_constant(_F32, 0.0)] * (rows * columns))

    @_define(tile, tile, types.int64, types.int64, types.int64, types.int64)
    def tile_step(builder: Any, sums: Any, a: Any, a_stride: Any, b: Any, b_stride: Any) -> Any:
        """sums[i, j] += a[i * a_stride] * b[j * b_stride], sixteen lanes each (strides in bytes)."""
        left = [
            _load(builder, builder.add(a, builder.mul(a_stride, _I64(i))), _VECTOR)
            for i in range(rows)
        ]
        for j in range(columns):
            right = _load(builder, builder.add(b, builder.mul(b_stride, _I64(j))), _VECTOR)
            for i in range(rows):
                index = i * columns + j
                old = builder.extract_value(sums, index)
                new = _call(builder, "fmuladd", left[i], right, old)
                sums = builder.insert_value(sums, new, index)
        return sums

    @_define(types.none, tile, types.int64)
    def tile_totals(builder: Any, sums: Any, out: Any) -> Any:
        """Write the rows x columns sums over the lanes as float32, row by row."""
        for index in range(rows * columns):
            value = _reduce(builder, builder.extract_value(sums, index), builder.fadd)
            address = builder.add(out, _I64(4 * index))
            builder.store(value, _at(builder, address, _F32), align=1)

    return tile_zero, tile_step, tile_totals


tile4x4_zero, tile4x4_step, tile4x4_totals = _tile_functions(4, 4)
tile4x1_zero, tile4x1_step, tile4x1_totals = _tile_functions(4, 1)


# --- threads --------------------------------------------------------------------------------


@_define(types.int64, types.int64, types.int64)
def atomic_add(builder: Any, address: Any, value: Any) -> Any:
    """Add to the int64 at an aligned address for all threads to see; returns what was there."""
    return builder.atomic_rmw("add", _at(builder, address, _I64), value, "acq_rel")


@_define(types.int64, types.int64)
def atomic_load(builder: Any, address: Any) -> Any:
    """The int64 at an aligned address; what its writer wrote before is visible afterwards."""
    return builder.load_atomic(_at(builder, address, _I64), "acquire", 8)


@_define(types.none)
def pause(builder: Any) -> Any:
    """Tell the core that this is a spin loop."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64", "i386", "i686"):
        signature = ir.FunctionType(ir.VoidType(), [])
        name, values = "llvm.x86.sse2.pause", []
    elif machine in ("aarch64", "arm64"):
        signature = ir.FunctionType(ir.VoidType(), [_I32])
        name, values = "llvm.aarch64.hint", [_I32(1)]
    else:
        return
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    builder.call(function, values)


def _call_address(parameters: int) -> Any:
    @_define(types.none, *([types.int64] * (parameters + 1)))
    def call(builder: Any, function: Any, *values: Any) -> None:
        """Call the compiled function at an address with int64 arguments."""
        signature = ir.FunctionType(ir.VoidType(), [_I64] * parameters)
        builder.call(builder.inttoptr(function, signature.as_pointer()), values)

    return call


call0 = _call_address(0)
call3 = _call_address(3)
call5 = _call_address(5)
