"""Transposes of sixteen packed rows into columns of a panel, and rows of two channels interleaved.

    a four: 4 bytes, such as four int8 of one group     rows r = 0 ... 15, fours k = 0 ... 7 (or 15)

                       lanes 0-7              lanes 8-15
    loaded, vector i   fours 0-7 of row i     fours 0-7 of row i + 8
    transposed, k      four k of rows 0-7     four k of rows 8-15
    widened, k         numbers 0, 1 of four k of rows 0 ... 15, a pair of int16 to a lane;
                       numbers 2, 3 are the next row of the panel (ROW bytes on)

Fours change places as they are packed and are widened to 16 bits afterwards: that takes two to four
times fewer shuffles than the other way round. Where a row's blocks end (its tail), a group is
transposed at a time. `kquants` transposes int6k and the scales of K-quants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.float_tiles import ROW
from sparity_edge.kernels.simd.int16_tiles import W_UNIT
from sparity_edge.kernels.simd.ir import (
    BYTES,
    F16,
    F32,
    FLOATS,
    I8,
    I16,
    I32,
    I64,
    INTEGERS,
    SHORTS,
    concatenate,
    constant,
    define,
    load_from,
    mask_bits,
    shift_right,
    shuffle,
    splat,
    splat_i32,
    store_to,
    undefined,
)
from sparity_edge.kernels.simd.vectors import vector

ROWS = (types.int64,) * 3  # address of the first of sixteen rows, their distance, the last there
GROUPS = 8
_SIXTEEN_BYTES, _HALF = ir.VectorType(I8, 16), ir.VectorType(I8, 32)


def row_address(builder: Any, address: Any, stride: Any, index: int, last: Any) -> Any:
    """The address of row `index`, or of the last row where there are not so many."""
    wanted = I64(index)
    row = builder.select(builder.icmp_signed("<", wanted, last), wanted, last)
    return builder.add(address, builder.mul(stride, row))


def load_rows(builder: Any, rows: tuple[Any, Any, Any], kind: ir.Type) -> Iterator[Any]:
    """The beginnings of sixteen rows, which `rows` describes as ROWS says, one after the other."""
    address, stride, last = rows
    for i in range(16):
        yield load_from(builder, row_address(builder, address, stride, i, last), kind)


def columns_of(builder: Any, rows: list[Any]) -> list[Any]:
    """The fours of sixteen rows by columns: squares of 1, 2, ... change places."""
    width = rows[0].type.count
    rows, size = [concatenate(builder, rows[i::width]) for i in range(width)], 1
    while size < width:
        low = [lane if lane & size == 0 else 16 + lane - size for lane in range(16)]
        high = [lane + size if lane & size == 0 else 16 + lane for lane in range(16)]
        for i in (each for each in range(width) if each & size == 0):
            a, b = rows[i], rows[i + size]
            rows[i], rows[i + size] = shuffle(builder, a, b, low), shuffle(builder, a, b, high)
        size *= 2
    return rows


def store_columns(
    builder: Any, rows: list[Any], out: Any, stride: Any, order: Sequence[int] = range(16)
) -> None:
    """Sixteen vectors of sixteen by columns, column k to place order[k]."""
    for place, column in zip(order, columns_of(builder, rows)):
        store_to(builder, column, builder.add(out, builder.mul(stride, I64(place))))


# --- one group at a time ----------------------------------------------------------------------


@define(types.none, types.int64, types.int64, *ROWS)
def transpose_floats(builder: Any, out: Any, out_stride: Any, *rows: Any) -> Any:
    """Sixteen float32 of sixteen rows, by columns."""
    store_columns(builder, list(load_rows(builder, rows, INTEGERS)), out, out_stride)


@define(types.none, types.int64, *ROWS)
def transpose_bytes(builder: Any, out: Any, *rows: Any) -> Any:
    """Thirty-two signed bytes of sixteen rows: pairs of 16-bit integers, by columns."""
    pairs = [
        builder.bitcast(builder.sext(each, SHORTS), INTEGERS)
        for each in load_rows(builder, rows, _HALF)
    ]
    store_columns(builder, pairs, out, I64(ROW))


def _transposing_nibbles(fours: int) -> Any:
    """A function for one of the four groups of 16 fours, or one of the two groups of 8."""

    @define(types.none, types.int64, *ROWS, types.int64, types.int64)
    def transpose(
        builder: Any, out: Any, a: Any, stride: Any, last: Any, group: Any, zero: Any
    ) -> Any:
        """Nibbles, less `zero`, of group `group` of a unit of sixteen rows: pairs by columns."""
        odd = builder.shl(builder.and_(group, I64(1)), I64(5))
        high = builder.shl(builder.and_(group, I64(2)), I64(1))
        kind = ir.VectorType(I64, fours // 2)
        shift = splat(builder, builder.add(odd, high), kind.count)
        zeros = splat(builder, builder.trunc(zero, I16), 32)
        pairs = []
        for unit in load_rows(builder, (a, stride, last), kind):
            chosen = builder.trunc(builder.lshr(unit, shift), ir.VectorType(I32, kind.count))
            numbers = builder.bitcast(chosen, ir.VectorType(I8, 4 * kind.count))
            if fours == 8:
                numbers = concatenate(builder, [numbers, shift_right(builder, numbers, 4)])
            numbers = mask_bits(builder, numbers, 15)
            shorts = builder.sub(builder.zext(numbers, SHORTS), zeros)
            pairs.append(builder.bitcast(shorts, INTEGERS))
        store_columns(builder, pairs, out, I64(ROW))

    return transpose


transpose_wide_nibbles, transpose_last_nibbles = _transposing_nibbles(16), _transposing_nibbles(8)


@define(vector, *ROWS)
def load_f16_column(builder: Any, *rows: Any) -> Any:
    """One float16 of each of sixteen rows as float32; for CPUs with F16C."""
    halves = undefined(ir.VectorType(I16, 16))
    for i, value in enumerate(load_rows(builder, rows, I16)):
        halves = builder.insert_element(halves, value, I32(i))
    return builder.fpext(builder.bitcast(halves, ir.VectorType(F16, 16)), FLOATS)


# --- eight groups at a time -------------------------------------------------------------------


def _pair(builder: Any, fours: Any, odd: int, signed: bool = False) -> Any:
    """The first or second two bytes of every four as 16-bit integers."""
    zero, first = 64, 2 * odd  # lane 64 is the first of a vector of zeros
    lanes = [
        lane for four in range(0, 64, 4) for lane in (four + first, zero, four + first + 1, zero)
    ]
    if signed:
        lanes = [lanes[lane ^ 1] for lane in range(64)]
    numbers = builder.bitcast(fours, BYTES)
    shorts = builder.bitcast(shuffle(builder, numbers, constant(BYTES, 0), lanes), SHORTS)
    return builder.ashr(shorts, constant(SHORTS, 8)) if signed else shorts


@define(types.none, types.int64, *ROWS)
def transpose_block_bytes(builder: Any, out: Any, *rows: Any) -> Any:
    """Four signed bytes of eight groups (see `block_dots`) of sixteen rows, as pairs by columns."""
    fours = columns_of(builder, list(load_rows(builder, rows, ir.VectorType(I32, GROUPS))))
    for group, each in enumerate(fours):
        for odd in (0, 1):
            numbers = _pair(builder, each, odd, signed=True)
            store_to(builder, numbers, out, group * W_UNIT + odd * ROW)


def _transposing_block_nibbles(apart: int) -> Any:
    @define(types.none, types.int64, *ROWS, types.int64)
    def transpose(builder: Any, out: Any, a: Any, stride: Any, last: Any, zero: Any) -> Any:
        """Low nibbles of eight groups less `zero` as pairs; the high ones `apart` pairs on."""
        zeros = splat(builder, builder.trunc(zero, I16), 32)
        rows = list(load_rows(builder, (a, stride, last), ir.VectorType(I32, GROUPS)))
        for group, each in enumerate(columns_of(builder, rows)):
            for high in (0, 1):
                numbers = mask_bits(builder, shift_right(builder, each, 4 * high), 0x0F0F0F0F)
                for odd in (0, 1):
                    shorts = builder.sub(_pair(builder, numbers, odd), zeros)
                    store_to(builder, shorts, out, group * W_UNIT + (apart * high + odd) * ROW)

    return transpose


# Of int4 the high nibbles are the second half of a group, of int4k the next four.
transpose_block_nibbles = _transposing_block_nibbles(8)
transpose_kquant_nibbles = _transposing_block_nibbles(2)


@define(types.none, types.int64, *ROWS)
def transpose_scales(builder: Any, out: Any, *rows: Any) -> Any:
    """Eight float16 of sixteen rows as float32 by columns, one for each group; needs F16C."""
    halves = load_rows(builder, rows, ir.VectorType(F16, GROUPS))
    wide, fours = ir.VectorType(F32, GROUPS), ir.VectorType(I32, GROUPS)
    floats = [builder.bitcast(builder.fpext(each, wide), fours) for each in halves]
    for group, each in enumerate(columns_of(builder, floats)):
        store_to(builder, each, out, group * W_UNIT)


# --- input-major rows: what stands side by side are outputs -----------------------------------


def interleave(builder: Any, even: Any, odd: Any) -> Any:
    """Pairs of 16-bit integers from the low halves of two vectors of sixteen."""
    low = mask_bits(builder, even, 0xFFFF)
    return builder.or_(low, builder.shl(odd, constant(INTEGERS, 16)))


@define(types.none, types.int64, types.int64, types.int64)
def interleave_bytes(builder: Any, out: Any, even: Any, odd: Any) -> Any:
    """Thirty-two signed bytes of two rows as pairs of 16-bit integers."""
    for i in range(2):
        pair = [
            builder.sext(load_from(builder, row, _SIXTEEN_BYTES, 16 * i), INTEGERS)
            for row in (even, odd)
        ]
        store_to(builder, interleave(builder, *pair), out, 64 * i)


@define(types.none, types.int64, types.int64, types.int64, types.int64)
def interleave_nibbles(builder: Any, out: Any, even: Any, odd: Any, zero: Any) -> Any:
    """The low, then the high nibbles of sixteen bytes of two rows, less `zero`, as pairs."""
    zeros = splat_i32(builder, zero)
    for i in range(2):
        pair = []
        for row in (even, odd):
            numbers = builder.zext(load_from(builder, row, _SIXTEEN_BYTES), INTEGERS)
            nibbles = mask_bits(builder, shift_right(builder, numbers, 4 * i), 15)
            pair.append(builder.sub(nibbles, zeros))
        store_to(builder, interleave(builder, *pair), out, 64 * i)
