"""Rows of packed weights turned into columns of pairs, eight groups of sixteen rows at once.

Fours of weights change places as they are packed and are widened to 16 bits afterwards: that takes
two to four times fewer shuffles than the other way round. Weights behind the last block
are turned a group at a time in `tiles`, those of int6k in `quads`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.float_tiles import ROW, row_address
from sparity_edge.kernels.simd.intrinsics import I8, I16, I32, I64, at, define, load_unaligned
from sparity_edge.kernels.simd.word_tiles import W_UNIT

_BYTES, _SHORTS = ir.VectorType(I8, 64), ir.VectorType(I16, 32)
_INTEGERS, _FLOATS = ir.VectorType(I32, 16), ir.VectorType(ir.FloatType(), 16)
_ROWS = (types.int64,) * 3  # address of the first of sixteen rows, their distance, the last there
GROUPS = 8


def _constant(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _pick(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
    return builder.shuffle_vector(left, right, mask)


def _store(builder: Any, value: Any, address: Any, nbytes: int) -> None:
    place = at(builder, builder.add(address, I64(nbytes)), value.type)
    builder.store(value, place, align=1)


def _load_rows(builder: Any, rows: tuple[Any, Any, Any], kind: ir.Type) -> list[Any]:
    return [load_unaligned(builder, row_address(builder, *rows[:2], i, rows[2]), kind)
            for i in range(16)]  # fmt: skip


def _joined(builder: Any, rows: list[Any]) -> list[Any]:
    """Sixteen rows of 4, 8 or 16 fours as as many vectors; vector i has rows i, i + 4 (8), ..."""
    width = rows[0].type.count
    vectors = []
    for i in range(width):
        parts = rows[i::width]
        while len(parts) > 1:
            lanes = list(range(2 * parts[0].type.count))
            parts = [_pick(builder, a, b, lanes) for a, b in zip(parts[::2], parts[1::2])]
        vectors += parts
    return vectors


def _columns(builder: Any, rows: list[Any]) -> list[Any]:
    """The fours of sixteen rows by columns: squares of 1, 2, ... change places."""
    rows, size = _joined(builder, rows), 1
    while size < len(rows):
        low = [lane if lane & size == 0 else 16 + lane - size for lane in range(16)]
        high = [lane + size if lane & size == 0 else 16 + lane for lane in range(16)]
        for i in (each for each in range(len(rows)) if each & size == 0):
            a, b = rows[i], rows[i + size]
            rows[i], rows[i + size] = _pick(builder, a, b, low), _pick(builder, a, b, high)
        size *= 2
    return rows


def _pair(builder: Any, fours: Any, odd: int, signed: bool = False) -> Any:
    """The first or second two bytes of every four as 16-bit integers."""
    zero, first = 64, 2 * odd  # lane 64 is the first of a vector of zeros
    lanes = [
        lane for four in range(0, 64, 4) for lane in (four + first, zero, four + first + 1, zero)
    ]
    if signed:
        lanes = [lanes[lane ^ 1] for lane in range(64)]
    numbers = builder.bitcast(fours, _BYTES)
    shorts = builder.bitcast(_pick(builder, numbers, _constant(_BYTES, 0), lanes), _SHORTS)
    return builder.ashr(shorts, _constant(_SHORTS, 8)) if signed else shorts


def _nibbles(builder: Any, fours: Any, high: int) -> Any:
    moved = builder.lshr(fours, _constant(_INTEGERS, 4)) if high else fours
    return builder.and_(moved, _constant(_INTEGERS, 0x0F0F0F0F))


@define(types.none, types.int64, *_ROWS)
def turn_lane_bytes(builder: Any, out: Any, *rows: Any) -> Any:
    """Four signed bytes of eight groups (see `lanes`) of sixteen rows, as pairs by columns."""
    fours = _columns(builder, _load_rows(builder, rows, ir.VectorType(I32, GROUPS)))
    for group, each in enumerate(fours):
        for odd in (0, 1):
            numbers = _pair(builder, each, odd, signed=True)
            _store(builder, numbers, out, group * W_UNIT + odd * ROW)


def _turning_nibbles(apart: int) -> Any:
    @define(types.none, types.int64, *_ROWS, types.int64)
    def turn(builder: Any, out: Any, a: Any, stride: Any, last: Any, zero: Any) -> Any:
        """Low nibbles less `zero` as `turn_lane_bytes`, and the high ones `apart` pairs on."""
        alone = builder.insert_element(
            ir.Constant(_SHORTS, ir.Undefined), builder.trunc(zero, I16), I32(0)
        )
        zeros = _pick(builder, alone, alone, [0] * 32)
        rows = _load_rows(builder, (a, stride, last), ir.VectorType(I32, GROUPS))
        for group, each in enumerate(_columns(builder, rows)):
            for high in (0, 1):
                numbers = _nibbles(builder, each, high)
                for odd in (0, 1):
                    shorts = builder.sub(_pair(builder, numbers, odd), zeros)
                    _store(builder, shorts, out, group * W_UNIT + (apart * high + odd) * ROW)

    return turn


# Of int4 the high nibbles are the second half of a group, of int4k the next four.
turn_lane_nibbles, turn_fours = _turning_nibbles(8), _turning_nibbles(2)


@define(types.none, types.int64, *_ROWS)
def turn_scales(builder: Any, out: Any, *rows: Any) -> Any:
    """Eight float16 of sixteen rows as float32 by columns, one for each group; needs F16C."""
    halves = _load_rows(builder, rows, ir.VectorType(ir.HalfType(), GROUPS))
    wide, fours = ir.VectorType(ir.FloatType(), GROUPS), ir.VectorType(I32, GROUPS)
    floats = [builder.bitcast(builder.fpext(each, wide), fours) for each in halves]
    for group, each in enumerate(_columns(builder, floats)):
        _store(builder, each, out, group * W_UNIT)
