"""What barriers between threads are made of: atomic counters, a pause, calls through an address."""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from sparity_edge.kernels.simd.ir import I32, I64, define, pointer


@define(types.int64, types.int64, types.int64)
def atomic_add(builder: Any, address: Any, value: Any) -> Any:
    """Add to the int64 at an aligned address for all threads to see; returns what was there."""
    return builder.atomic_rmw("add", pointer(builder, address, I64), value, "acq_rel")


@define(types.int64, types.int64)
def atomic_load(builder: Any, address: Any) -> Any:
    """The int64 at an aligned address; what its writer wrote before is visible afterwards."""
    return builder.load_atomic(pointer(builder, address, I64), "acquire", 8)


@define(types.none)
def pause(builder: Any) -> Any:
    """Tell the core that this is a spin loop."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64", "i386", "i686"):
        signature = ir.FunctionType(ir.VoidType(), [])
        name, values = "llvm.x86.sse2.pause", []
    elif machine in ("aarch64", "arm64"):
        signature = ir.FunctionType(ir.VoidType(), [I32])
        name, values = "llvm.aarch64.hint", [I32(1)]
    else:
        return
    function = cgutils.get_or_insert_function(builder.module, signature, name)
    builder.call(function, values)


def _call_address(parameters: int) -> Any:
    @define(types.none, *([types.int64] * (parameters + 1)))
    def call(builder: Any, function: Any, *values: Any) -> None:
        """Call the compiled function at an address with int64 arguments."""
        signature = ir.FunctionType(ir.VoidType(), [I64] * parameters)
        builder.call(builder.inttoptr(function, signature.as_pointer()), values)

    return call


call0 = _call_address(0)
call3 = _call_address(3)
