"""Dot products of four rows with one vector: the tile of attention over cached keys.

    lane          0    1    ...   15
    row 0 . x     s    s    ...   s
    row 1 . x     s    s    ...   s
    row 2 . x     s    s    ...   s
    row 3 . x     s    s    ...   s

A tile is a vector of partial sums for each row. `tile4x1_totals` sums the lanes of all four
together, which takes fewer shuffles than one after the other, and writes the sums side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.conversions import load_bf16_from
from sparity_edge.kernels.simd.ir import (
    FLOATS,
    I64,
    constant,
    define,
    join,
    load_from,
    members,
    multiply_add,
    shuffle,
    store_to,
)
from sparity_edge.kernels.simd.vectors import tile_type

ROWS = 4
_tile = tile_type(ROWS, 1)


@define(_tile)
def tile4x1_zero(_builder: Any) -> Any:
    """Four vectors of zeros."""
    return ir.Constant(_tile.kind, [constant(FLOATS, 0.0)] * ROWS)


def _step(load_row: Callable[[Any, Any], Any]) -> Any:
    @define(_tile, _tile, types.int64, types.int64, types.int64)
    def step(builder: Any, sums: Any, a: Any, stride: Any, b: Any) -> Any:
        """sums[i] += a[i * stride] * b, sixteen lanes each: b is float32, the stride in bytes."""
        right = load_from(builder, b, FLOATS)
        new = []
        for index, old in enumerate(members(builder, sums, ROWS)):
            row = load_row(builder, builder.add(a, builder.mul(stride, I64(index))))
            new.append(multiply_add(builder, row, right, old))
        return join(builder, new)

    return step


tile4x1_step = _step(lambda builder, place: load_from(builder, place, FLOATS))
tile4x1_step_bf16 = _step(load_bf16_from)


@define(types.none, _tile, types.int64)
def tile4x1_totals(builder: Any, sums: Any, out: Any) -> Any:
    """Write the four sums over the lanes as float32; touches 64 bytes in any case.

    All sums are taken together, halving the number of vectors at each step.
    """
    vectors = members(builder, sums, ROWS)
    for _ in range(4):
        right = vectors[1::2] or vectors
        vectors = [_add_pairs(builder, a, b) for a, b in zip(vectors[::2], right)]
    store_to(builder, vectors[0], out)


def _add_pairs(builder: Any, left: Any, right: Any) -> Any:
    """Sums of neighbouring lanes: eight of left, then eight of right."""
    even, odd = (shuffle(builder, left, right, range(start, 32, 2)) for start in (0, 1))
    return builder.fadd(even, odd)
