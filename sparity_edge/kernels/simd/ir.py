"""LLVM IR in one place: types, constants, shuffles, loads and stores, and `define`.

Most functions here take llvmlite's IRBuilder first, run while a kernel is being compiled and return
an IR value; `define` makes of such a function one that compiled Python can call. Vectors have
sixteen 32-bit lanes or as many bytes: one AVX-512 register, which LLVM splits for AVX2, SSE and
NEON. Nothing here knows what is computed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

from sparity_edge.kernels.checks import CHECKED, READ_END, WRITE_END
from sparity_edge.kernels.simd.cpu import features

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F16, F32 = ir.HalfType(), ir.FloatType()
LANES = 16
FLOATS = ir.VectorType(F32, LANES)
INTEGERS = ir.VectorType(I32, LANES)
SHORTS = ir.VectorType(I16, 2 * LANES)
BYTES = ir.VectorType(I8, 4 * LANES)
LANE_NUMBERS = ir.Constant(INTEGERS, list(range(LANES)))

Emit = Callable[..., Any]

# Of what checks the address of a load or store (`bounds`): (address, bytes, end) -> address, where
# end is READ_END or WRITE_END of `checks`.
PLACE_SYMBOL = "sparity_edge_place"
PLACE_TYPE = ir.FunctionType(I64, [I64, I64, I64])


# --- functions and types of compiled Python ---------------------------------------------------


def define(result: types.Type, *parameters: types.Type) -> Callable[[Emit], Any]:
    """Turn `emit(builder, *values) -> value` into an intrinsic.

    Args:
        result: the Numba type of what the intrinsic returns, `types.none` for nothing.
        parameters: the Numba types of its arguments.

    Returns:
        A decorator for `emit`.
    """

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


class LLVMType(types.Type):
    """A Numba type whose values are LLVM values of one IR type, kept in registers.

    Args:
        name: by which Numba tells it from others.
        kind: the IR type, such as `FLOATS`.
    """

    def __init__(self, name: str, kind: ir.Type) -> None:
        self.kind = kind
        super().__init__(name=name)


@register_model(LLVMType)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, fe_type.kind)


def struct_type(name: str, kind: ir.Type, count: int) -> LLVMType:
    """A Numba type for `count` values of one IR type that are passed around together."""
    return LLVMType(name, ir.LiteralStructType([kind] * count))


def join(builder: Any, values: Sequence[Any]) -> Any:
    """A value of a `struct_type` from its members."""
    struct = undefined(ir.LiteralStructType([each.type for each in values]))
    for index, each in enumerate(values):
        struct = builder.insert_value(struct, each, index)
    return struct


def members(builder: Any, struct: Any, count: int) -> list[Any]:
    """The first `count` members of a value of a `struct_type`."""
    return [builder.extract_value(struct, index) for index in range(count)]


# --- memory -----------------------------------------------------------------------------------


def pointer(builder: Any, address: Any, kind: ir.Type) -> Any:
    """An int64 address as a pointer."""
    return builder.inttoptr(address, kind.as_pointer())


def offset(builder: Any, address: Any, nbytes: int) -> Any:
    """The address `nbytes` further on."""
    return builder.add(address, I64(nbytes))


def size_of(kind: ir.Type) -> int:
    """Bytes of a number or a vector in memory."""
    if isinstance(kind, ir.VectorType):
        return int(kind.count) * size_of(kind.element)
    if isinstance(kind, ir.IntType):
        return int(kind.width) // 8
    return {F16: 2, F32: 4}[kind]


def _checked(builder: Any, address: Any, kind: ir.Type, end: int) -> Any:
    """The address, or that of a dummy if what stands there is none of the operation's operands."""
    function = cgutils.get_or_insert_function(builder.module, PLACE_TYPE, PLACE_SYMBOL)
    return builder.call(function, [address, I64(size_of(kind)), I64(end)])


def load_from(
    builder: Any, address: Any, kind: ir.Type, nbytes: int = 0, *, checked: bool = CHECKED
) -> Any:
    """The value `nbytes` after an address, which need not be aligned."""
    place = offset(builder, address, nbytes) if nbytes else address
    place = _checked(builder, place, kind, READ_END) if checked else place
    return builder.load(pointer(builder, place, kind), align=1)


def store_to(
    builder: Any, value: Any, address: Any, nbytes: int = 0, *, checked: bool = CHECKED
) -> None:
    """Write a value `nbytes` after an address, which need not be aligned."""
    place = offset(builder, address, nbytes) if nbytes else address
    place = _checked(builder, place, value.type, WRITE_END) if checked else place
    builder.store(value, pointer(builder, place, value.type), align=1)


# --- lanes ------------------------------------------------------------------------------------


def undefined(kind: ir.Type) -> ir.Constant:
    """A value to insert elements into."""
    return ir.Constant(kind, ir.Undefined)


def constant(kind: ir.VectorType, value: float) -> ir.Constant:
    """One number in every lane."""
    return ir.Constant(kind, [value] * kind.count)


def shuffle(builder: Any, left: Any, right: Any, lanes: Sequence[int]) -> Any:
    """Lanes of two vectors in a new order: 0.. are those of left, count.. those of right."""
    order = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
    return builder.shuffle_vector(left, right, order)


def splat(builder: Any, value: Any, count: int = LANES) -> Any:
    """A number in each of `count` lanes."""
    alone = builder.insert_element(undefined(ir.VectorType(value.type, count)), value, I32(0))
    return shuffle(builder, alone, alone, [0] * count)


def splat_i32(builder: Any, value: Any) -> Any:
    """The low half of an int64 in every lane of `INTEGERS`."""
    return splat(builder, builder.trunc(value, I32))


def concatenate(builder: Any, vectors: Sequence[Any]) -> Any:
    """Vectors of one type side by side; their number is a power of two."""
    parts = list(vectors)
    while len(parts) > 1:
        lanes = range(2 * parts[0].type.count)
        parts = [shuffle(builder, a, b, lanes) for a, b in zip(parts[::2], parts[1::2])]
    return parts[0]


def mask_bits(builder: Any, value: Any, mask: int) -> Any:
    """Every lane & mask."""
    return builder.and_(value, constant(value.type, mask))


def shift_right(builder: Any, value: Any, bits: int) -> Any:
    """Every lane >> bits, as unsigned numbers."""
    return builder.lshr(value, constant(value.type, bits)) if bits else value


# --- arithmetic -------------------------------------------------------------------------------


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


def multiply_add(builder: Any, left: Any, right: Any, addend: Any) -> Any:
    """left * right + addend, in one rounding where the CPU can (no library call elsewhere)."""
    return call_llvm(builder, "fmuladd", left, right, addend)


def halves_to_floats(builder: Any, bits: Any) -> Any:
    """A vector of int16 that are the bits of float16 as float32.

    Without F16C `fpext half` would become a library call, which no JIT resolves: integer arithmetic
    then, which is exact for every finite value.
    """
    count = bits.type.count
    floats, integers = ir.VectorType(F32, count), ir.VectorType(I32, count)
    if "f16c" in features():
        return builder.fpext(builder.bitcast(bits, ir.VectorType(F16, count)), floats)
    wide = builder.zext(bits, integers)
    magnitude = builder.shl(mask_bits(builder, wide, 0x7FFF), constant(integers, 13))
    scaled = builder.fmul(builder.bitcast(magnitude, floats), constant(floats, 2.0**112))
    sign = builder.shl(mask_bits(builder, wide, 0x8000), constant(integers, 16))
    return builder.bitcast(builder.or_(builder.bitcast(scaled, integers), sign), floats)
