"""Software prefetch of cache lines, by where they are to go.

An address need not exist: a prefetch of what is not mapped does nothing. Which distance and which
level suit a kernel stands where it prefetches.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from sparity_edge.kernels.simd.ir import I8, I32, define, pointer

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
