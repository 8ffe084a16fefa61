"""Sums of tiles of input-major K-quants (int4k, int6k): AXPY in integers, then scales and factors.

What stands where is drawn in `simd/kquant_columns.py`. Sums of four rows (`integer_axpy`) come in
the order of columns, so that scales are loaded as they stand, and nobody has to put sums into
order. All are intrinsics.
"""

from __future__ import annotations

from typing import Any

from numba.core import types

from sparity_edge.kernels.simd.ir import (
    BYTES,
    constant,
    define,
    load_from,
    mask_bits,
    members,
    shift_right,
    shuffle,
)
from sparity_edge.kernels.simd.kquant_columns import (
    bytes_to_floats,
    factors_from,
    signed_bytes_from,
)
from sparity_edge.kernels.simd.kquants import top_bits
from sparity_edge.kernels.simd.vectors import vector
from sparity_edge.kernels.sparse.integer_axpy import (
    LINE_PART,
    OF_NIBBLES,
    TILE_OF_NIBBLES,
    add_to,
    columns_of_four,
    low_and_high,
    scaled,
    start_sums,
    step,
)

_FOUR_ROWS = (types.int64,) * 4


def _parts(builder: Any, line: Any) -> list[Any]:
    """64 bytes as four vectors of float32."""
    cuts = [shuffle(builder, line, line, range(i, i + 16)) for i in range(0, 64, 16)]
    return [bytes_to_floats(builder, each) for each in cuts]


@define(OF_NIBBLES, types.float32)
def start_int6k(builder: Any, whole: Any) -> Any:
    """Sums of 128 columns before any row, less 32 times the total of the activations to come."""
    return start_sums(builder, whole, [-32] * 8)


def _sixes(builder: Any, rows: list[Any]) -> list[Any]:
    return [mask_bits(builder, each, 63) for each in rows]


def _lines(builder: Any, rows: tuple[Any, ...], index: int) -> list[Any]:
    return [load_from(builder, row, LINE_PART, 64 * index) for row in rows]


@define(OF_NIBBLES, OF_NIBBLES, *_FOUR_ROWS, types.int64)
def add_low_sixes(builder: Any, sums: Any, a: Any, b: Any, c: Any, d: Any, digits: Any) -> Any:
    """Add columns 0-127 of four rows of int6k times the four activations at `digits`."""
    columns = []
    for index in (0, 1):
        columns += columns_of_four(builder, _sixes(builder, _lines(builder, (a, b, c, d), index)))
    return step(builder, sums, columns, digits)


@define(OF_NIBBLES, OF_NIBBLES, *_FOUR_ROWS, types.int64)
def add_high_sixes(builder: Any, sums: Any, a: Any, b: Any, c: Any, d: Any, digits: Any) -> Any:
    """Add columns 128-255 of four rows of int6k times the four activations at `digits`."""
    lines = [_lines(builder, (a, b, c, d), index) for index in range(3)]
    tops = [top_bits(builder, *each) for each in zip(*lines)]
    columns = columns_of_four(builder, _sixes(builder, lines[2])) + columns_of_four(builder, tops)
    return step(builder, sums, columns, digits)


@define(types.none, TILE_OF_NIBBLES, types.int64, types.int64, types.int64, vector)
def put_int6k(builder: Any, sums: Any, scales: Any, factors: Any, place: Any, scale: Any) -> Any:
    """Add 128 sums times `scale`, their own scales and factors to the float32 at place."""
    values = scaled(builder, members(builder, sums, 8), scale)
    own = []
    for index in range(8):
        factor = factors_from(builder, factors, index)
        own.append(builder.fmul(signed_bytes_from(builder, scales, index), factor))
    add_to(builder, place, [(values, own)])


@define(
    types.none, TILE_OF_NIBBLES, types.int64, types.int64, types.int64, types.int64, vector, vector
)
def put_int4k(
    builder: Any, sums: Any, scales: Any, factors: Any, others: Any, place: Any, scale: Any,
    total: Any,
) -> Any:  # fmt: skip
    """Add 128 sums times `scale` and their own scales, less minima times the total, at place.

    `factors` and `others` are the addresses of what scales and minima are multiplied with.
    """
    values = low_and_high(builder, sums, scale)
    tops = load_from(builder, scales, BYTES, 128)
    own, minima = [], []
    for half in (0, 1):
        low = load_from(builder, scales, BYTES, 64 * half)
        top = mask_bits(builder, tops, 15) if half == 0 else shift_right(builder, tops, 4)
        top = builder.shl(top, constant(BYTES, 2))
        least = builder.or_(shift_right(builder, low, 6), top)
        own += _parts(builder, mask_bits(builder, low, 63))
        minima += _parts(builder, least)
    own = [builder.fmul(each, factors_from(builder, factors, i)) for i, each in enumerate(own)]
    minima = [builder.fmul(each, factors_from(builder, others, i)) for i, each in enumerate(minima)]
    add_to(builder, place, [(values, own), (builder.fneg(total), minima)])
