"""Tiles: small blocks of a matrix product that stay in registers, for many tokens at a time.

A tile is 6 tokens by 16 or 32 outputs: each vector is sixteen outputs of one token, each step takes
a vector of weights and one number of each token. Floats take one input a step. 16-bit integers take
two, and 32 inputs are summed before a scale is applied; they need `vpdpwssd`, which runs at twice
the rate of float32. So does `vdpbf16ps`, which keeps 8 bits of an activation. Knows no formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.cpu import features
from sparity_edge.kernels.simd.intrinsics import F32, I8, I16, I32, I64, at, define, load_unaligned
from sparity_edge.kernels.simd.vectors import Tile, call_llvm, vector

TOKENS = 6  # of a tile
PANEL = 32  # outputs of a panel of weights
# Vectors of weights a step takes: 12 of 32 registers are sums, or of 16 with AVX2.
WIDTH = 2 if "avx512f" in features() else 1
ROW = 4 * PANEL  # bytes of one input (or pair of inputs) in a panel
UNIT = 32  # inputs

_FLOATS, _WORDS = ir.VectorType(F32, 16), ir.VectorType(I32, 16)


def _constant(kind: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _pick(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
    return builder.shuffle_vector(left, right, mask)


def _splat(builder: Any, value: Any, count: int = 16) -> Any:
    kind = ir.VectorType(value.type, count)
    alone = builder.insert_element(ir.Constant(kind, ir.Undefined), value, I32(0))
    return _pick(builder, alone, alone, [0] * count)


def _offset(builder: Any, address: Any, nbytes: int) -> Any:
    return builder.add(address, I64(nbytes))


def _load(builder: Any, address: Any, nbytes: int, kind: ir.Type) -> Any:
    return load_unaligned(builder, _offset(builder, address, nbytes), kind)


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, at(builder, address, value.type), align=1)


def row_address(builder: Any, address: Any, stride: Any, index: int, last: Any) -> Any:
    """The address of row `index`, or of the last row where there are not so many."""
    wanted = I64(index)
    row = builder.select(builder.icmp_signed("<", wanted, last), wanted, last)
    return builder.add(address, builder.mul(stride, row))


# --- sums -----------------------------------------------------------------------------------


def _tile_memory(width: int) -> tuple[Any, Any, Any]:
    tile = Tile(width, TOKENS)
    block = ir.LiteralStructType([_FLOATS] * (width * TOKENS))

    @define(tile)
    def zero(_builder: Any) -> Any:
        """No sum yet."""
        return ir.Constant(block, [_constant(_FLOATS, 0.0)] * (width * TOKENS))

    @define(tile, types.int64, types.int64)
    def load_tile(builder: Any, address: Any, stride: Any) -> Any:
        """Sums of six tokens, `stride` bytes apart."""
        sums = ir.Constant(block, ir.Undefined)
        for j in range(TOKENS):
            row = builder.add(address, builder.mul(stride, I64(j)))
            for i in range(width):
                value = _load(builder, row, 64 * i, _FLOATS)
                sums = builder.insert_value(sums, value, i * TOKENS + j)
        return sums

    @define(types.none, types.int64, types.int64, tile)
    def store_tile(builder: Any, address: Any, stride: Any, sums: Any) -> Any:
        """Write what `load_tile` reads."""
        for j in range(TOKENS):
            row = builder.add(address, builder.mul(stride, I64(j)))
            for i in range(width):
                value = builder.extract_value(sums, i * TOKENS + j)
                _store(builder, value, _offset(builder, row, 64 * i))

    return zero, load_tile, store_tile


no_sums, load_sums, store_sums = _tile_memory(WIDTH)


def _float_step(distance: int) -> Any:
    tile = Tile(WIDTH, TOKENS)

    @define(tile, tile, types.int64, types.int64)
    def step(builder: Any, sums: Any, w: Any, x: Any) -> Any:
        """Add vectors of weights at w times one number of each token at x."""
        weights = [_load(builder, w, 64 * i, _FLOATS) for i in range(WIDTH)]
        for j in range(TOKENS):
            number = _splat(builder, _load(builder, x, distance * j, F32))
            for i in range(WIDTH):
                index = i * TOKENS + j
                old = builder.extract_value(sums, index)
                new = call_llvm(builder, "fmuladd", weights[i], number, old)
                sums = builder.insert_value(sums, new, index)
        return sums

    return step


step_side_by_side = _float_step(4)  # numbers of the six tokens follow each other
step_rows_of_64 = _float_step(256)  # each token has a row of 64 numbers


@define(vector, vector, types.int64, types.int64)
def keep_lanes(builder: Any, value: Any, first: Any, last: Any) -> Any:
    """Lanes first..last-1; the others become -inf."""
    lanes = ir.Constant(_WORDS, list(range(16)))
    first, last = (_splat(builder, builder.trunc(each, I32)) for each in (first, last))
    late_enough = builder.icmp_signed(">=", lanes, first)
    wanted = builder.and_(late_enough, builder.icmp_signed("<", lanes, last))
    return builder.select(wanted, value, _constant(_FLOATS, float("-inf")))


# --- transposition --------------------------------------------------------------------------


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Sixteen vectors of sixteen as their columns: swap squares of 1, 2, 4 and 8."""
    for size in (1, 2, 4, 8):
        low = [lane if lane & size == 0 else 16 + lane - size for lane in range(16)]
        high = [lane + size if lane & size == 0 else 16 + lane for lane in range(16)]
        for i in range(16):
            if i & size == 0:
                a, b = rows[i], rows[i + size]
                rows[i], rows[i + size] = _pick(builder, a, b, low), _pick(builder, a, b, high)
    return rows


def store_columns(
    builder: Any, rows: list[Any], out: Any, stride: Any, order: Sequence[int] = range(16)
) -> None:
    """Sixteen vectors of sixteen by columns, column k to place order[k]."""
    for place, column in zip(order, _transposed(builder, rows)):
        _store(builder, column, builder.add(out, builder.mul(stride, I64(place))))


_ROWS = (types.int64,) * 3  # address of the first of sixteen rows, their distance, the last there


@define(types.none, types.int64, types.int64, *_ROWS)
def turn_floats(builder: Any, out: Any, out_stride: Any, a: Any, stride: Any, last: Any) -> Any:
    """Sixteen float32 of sixteen rows, by columns."""
    rows = [
        load_unaligned(builder, row_address(builder, a, stride, i, last), _WORDS) for i in range(16)
    ]
    store_columns(builder, rows, out, out_stride)


def _pairs(builder: Any, numbers: Any) -> Any:
    """Thirty-two 16-bit integers as sixteen pairs."""
    return builder.bitcast(numbers, _WORDS)


_SHORTS = ir.VectorType(I16, 32)


@define(types.none, types.int64, *_ROWS)
def turn_bytes(builder: Any, out: Any, a: Any, stride: Any, last: Any) -> Any:
    """Thirty-two signed bytes of sixteen rows: pairs of 16-bit integers, by columns."""
    rows = []
    for i in range(16):
        place = row_address(builder, a, stride, i, last)
        numbers = load_unaligned(builder, place, ir.VectorType(I8, 32))
        rows.append(_pairs(builder, builder.sext(numbers, _SHORTS)))
    store_columns(builder, rows, out, I64(ROW))


def _turn_nibbles(fours: int) -> Any:
    """A function for one of the four groups of 16 fours, or one of the two groups of 8."""

    @define(types.none, types.int64, *_ROWS, types.int64, types.int64)
    def turn(builder: Any, out: Any, a: Any, stride: Any, last: Any, group: Any, zero: Any) -> Any:
        """Four bits, less `zero`, of group `group` of a unit of sixteen rows, as `turn_bytes`."""
        odd = builder.shl(builder.and_(group, I64(1)), I64(5))
        high = builder.shl(builder.and_(group, I64(2)), I64(1))
        kind = ir.VectorType(I64, fours // 2)
        shift = _splat(builder, builder.add(odd, high), kind.count)
        zeros = _splat(builder, builder.trunc(zero, I16), 32)
        rows = []
        for i in range(16):
            unit = load_unaligned(builder, row_address(builder, a, stride, i, last), kind)
            chosen = builder.trunc(builder.lshr(unit, shift), ir.VectorType(I32, kind.count))
            numbers = builder.bitcast(chosen, ir.VectorType(I8, 4 * kind.count))
            if fours == 8:
                upper = builder.lshr(numbers, _constant(numbers.type, 4))
                numbers = _pick(builder, numbers, upper, list(range(32)))
            numbers = builder.and_(numbers, _constant(numbers.type, 15))
            shorts = builder.sub(builder.zext(numbers, _SHORTS), zeros)
            rows.append(_pairs(builder, shorts))
        store_columns(builder, rows, out, I64(ROW))

    return turn


turn_wide_nibbles, turn_last_nibbles = _turn_nibbles(16), _turn_nibbles(8)


@define(vector, *_ROWS)
def load_f16_column(builder: Any, a: Any, stride: Any, last: Any) -> Any:
    """One float16 of each of sixteen rows as float32; for CPUs with F16C."""
    halves = ir.Constant(ir.VectorType(I16, 16), ir.Undefined)
    for i in range(16):
        value = load_unaligned(builder, row_address(builder, a, stride, i, last), I16)
        halves = builder.insert_element(halves, value, I32(i))
    return builder.fpext(builder.bitcast(halves, ir.VectorType(ir.HalfType(), 16)), _FLOATS)


def _zip(builder: Any, even: Any, odd: Any) -> Any:
    """Pairs of 16-bit integers from two vectors of sixteen."""
    low = builder.and_(even, _constant(_WORDS, 0xFFFF))
    return builder.or_(low, builder.shl(odd, _constant(_WORDS, 16)))


@define(types.none, types.int64, types.int64, types.int64)
def zip_bytes(builder: Any, out: Any, even: Any, odd: Any) -> Any:
    """Thirty-two signed bytes of two rows as pairs of 16-bit integers."""
    for i in range(2):
        halves = [
            builder.sext(_load(builder, row, 16 * i, ir.VectorType(I8, 16)), _WORDS)
            for row in (even, odd)
        ]
        _store(builder, _zip(builder, *halves), _offset(builder, out, 64 * i))


@define(types.none, types.int64, types.int64, types.int64, types.int64)
def zip_nibbles(builder: Any, out: Any, even: Any, odd: Any, zero: Any) -> Any:
    """The low, then the high four bits of sixteen bytes of two rows, less `zero`, as pairs."""
    zeros = _splat(builder, builder.trunc(zero, I32))
    for i in range(2):
        halves = []
        for row in (even, odd):
            numbers = builder.zext(_load(builder, row, 0, ir.VectorType(I8, 16)), _WORDS)
            nibbles = builder.lshr(numbers, _constant(_WORDS, 4 * i))
            halves.append(builder.sub(builder.and_(nibbles, _constant(_WORDS, 15)), zeros))
        _store(builder, _zip(builder, *halves), _offset(builder, out, 64 * i))
