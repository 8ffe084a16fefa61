"""Intrinsics: functions of Numba code that stand for a few LLVM instructions.

`simd` and `atomics` are made of these; nothing here knows what the instructions are for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32 = ir.FloatType()

Emit = Callable[..., Any]


def define(result: types.Type, *parameters: types.Type) -> Callable[[Emit], Any]:
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


def at(builder: Any, address: Any, element: ir.Type) -> Any:
    return builder.inttoptr(address, element.as_pointer())


def load_unaligned(builder: Any, address: Any, element: ir.Type) -> Any:
    """Load without any claim about alignment."""
    return builder.load(at(builder, address, element), align=1)
