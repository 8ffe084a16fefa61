"""Sixteen rows of four-bit weights side by side, a row to a lane, times 8-bit activations.

    byte of a vector     0  1  2  3 | 4  5  6  7 | ...   | 60 61 62 63
    low nibbles          inputs 8 v ... 8 v + 3 of row 0 | of row 1 | ... | of row 15
    high nibbles         inputs 8 v + 4 ... 8 v + 7, likewise                  (vector v of a group)

Four activations are the same for all rows, so that a product of 128 weights is one load, three
instructions that part nibbles, and two dot products (`vpdpbusd`; `vpmaddubsw` and `vpmaddwd` with
AVX2). Nothing is added across lanes, and there is no tail, however short the rows.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.integer_dots import dot_bytes
from sparity_edge.kernels.simd.ir import (
    BYTES,
    FLOATS,
    I8,
    I32,
    INTEGERS,
    call_llvm,
    constant,
    define,
    load_from,
    mask_bits,
    offset,
    shift_right,
    splat,
    store_to,
)
from sparity_edge.kernels.simd.memory import NON_TEMPORAL, emit_prefetch
from sparity_edge.kernels.simd.vectors import vector

VECTORS = 8  # of a group of 64 inputs
_SMALL = ir.VectorType(I8, 16)


@define(vector, types.int64, types.int64, types.int64)
def group_dot(builder: Any, numbers: Any, activations: Any, ahead: Any) -> Any:
    """Of sixteen rows the products of a group of 64 inputs, as float32.

    Args:
        numbers: the address of 512 bytes.
        activations: the address of 64 signed bytes.
        ahead: 512 bytes are prefetched from there on.
    """
    low = high = constant(INTEGERS, 0)
    for index in range(VECTORS):
        emit_prefetch(builder, offset(builder, ahead, 64 * index), NON_TEMPORAL)
        packed = load_from(builder, numbers, BYTES, 64 * index)
        first, second = (
            builder.bitcast(splat(builder, load_from(builder, activations, I32, place)), BYTES)
            for place in (8 * index, 8 * index + 4)
        )
        low = dot_bytes(builder, low, mask_bits(builder, packed, 15), first)
        high = dot_bytes(builder, high, shift_right(builder, packed, 4), second)
    return builder.sitofp(builder.add(low, high), FLOATS)


@define(vector, types.int64, vector)
def store_small(builder: Any, address: Any, values: Any) -> Any:
    """Round sixteen numbers of at most 127 and write them as signed bytes.

    Returns:
        The rounded numbers.
    """
    whole = call_llvm(builder, "rint", values)
    integers = builder.fptosi(whole, INTEGERS)
    store_to(builder, builder.trunc(integers, _SMALL), address)
    return whole
