"""Vectors of numbers in superblocks (int4k, int6k), whose units of 64 take turns by fours.

Lane i of a byte dot product holds four inputs of sixteen i % 4 of its unit (in the order 0, 2, 1,
3), so that a scale for every 16 inputs is four floats repeated, and one for every 32 two floats.
Everything here is an intrinsic, as in `simd`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.bytewise import byte_vector, digits_of
from sparity_edge.kernels.intrinsics import F32, I8, I16, I32, I64, at, define, load_unaligned
from sparity_edge.kernels.products import carry, dot_first, dot_second
from sparity_edge.kernels.simd import vector
from sparity_edge.kernels.tiles import ROW, row_address, store_columns

_BYTES = ir.VectorType(I8, 64)
_FOURS = ir.VectorType(I32, 4)
_SIXTEEN = ir.VectorType(I8, 16)
_THIRTY_TWO = ir.VectorType(I8, 32)
_INTEGERS = ir.VectorType(I32, 16)
_FLOATS = ir.VectorType(F32, 16)
_SHORTS = ir.VectorType(I16, 32)


def _constant(kind: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _pick(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
    return builder.shuffle_vector(left, right, mask)


def _shift_down(builder: Any, packed: Any, places: int) -> Any:
    return builder.lshr(packed, _constant(packed.type, places)) if places else packed


def _tops(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """The number whose bits 0-1, 2-3 and 4-5 are the top bits of three bytes."""
    parts = [
        builder.and_(_shift_down(builder, each, 6 - places), _constant(each.type, 3 << places))
        for each, places in ((a, 0), (b, 2), (c, 4))
    ]
    return builder.or_(builder.or_(parts[0], parts[1]), parts[2])


# --- products -------------------------------------------------------------------------------


@define(byte_vector, byte_vector)
def low_sixes(builder: Any, packed: Any) -> Any:
    """The low six bits of every byte."""
    return builder.and_(packed, _constant(_BYTES, 63))


@define(byte_vector, byte_vector, byte_vector, byte_vector)
def top_sixes(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """The fourth unit of int6k, from the top bits of the other three."""
    return _tops(builder, a, b, c)


@define(vector, byte_vector, types.int64)
def quad_dot(builder: Any, weights: Any, x: Any) -> Any:
    """Sums of products, by fours, with 64 activations, whose halves stand at x."""
    halves = (load_unaligned(builder, builder.add(x, I64(offset)), _BYTES) for offset in (0, 64))
    first, second = halves
    sums = dot_first(builder, _constant(_INTEGERS, 0), weights, first)
    sums = dot_second(builder, carry(builder, sums), weights, second)
    return builder.sitofp(sums, _FLOATS)


@define(vector, types.int64)
def repeat_four(builder: Any, address: Any) -> Any:
    """Four float32, four times."""
    four = load_unaligned(builder, address, ir.VectorType(F32, 4))
    return _pick(builder, four, four, [lane % 4 for lane in range(16)])


@define(vector, types.int64)
def load_u8(builder: Any, address: Any) -> Any:
    """Sixteen unsigned bytes as float32."""
    numbers = load_unaligned(builder, address, _SIXTEEN)
    return builder.sitofp(builder.zext(numbers, _INTEGERS), _FLOATS)


@define(vector, vector)
def upper_half(builder: Any, value: Any) -> Any:
    """Lanes 8-15; the others become zero."""
    return _pick(builder, _constant(_FLOATS, 0.0), value, [*range(8), *range(24, 32)])


@define(vector, types.int64, vector)
def store_quad_digits(builder: Any, address: Any, values: Any) -> Any:
    """Round 16 numbers, write each four of high digits 16 bytes on, low digits 64 bytes behind.

    Returns:
        The rounded numbers.
    """
    whole, *digits = digits_of(builder, values)
    for offset, digit in zip((0, 64), digits):
        fours = builder.bitcast(digit, _FOURS)
        for index in range(4):
            place = at(builder, builder.add(address, I64(offset + 16 * index)), I32)
            builder.store(builder.extract_element(fours, I32(index)), place, align=1)
    return whole


# --- floats ---------------------------------------------------------------------------------


def _every_fourth_four(builder: Any, address: Any) -> Any:
    """Bytes 0-3, 16-19, 32-35 and 48-51: a sixteen of a unit."""
    fours = ir.Constant(_FOURS, ir.Undefined)
    for index in range(4):
        four = load_unaligned(builder, builder.add(address, I64(16 * index)), I32)
        fours = builder.insert_element(fours, four, I32(index))
    return builder.bitcast(fours, _SIXTEEN)


def _sixteen(take: Callable[[Any, Any], Any]) -> Any:
    @define(vector, types.int64)
    def load_sixteen(builder: Any, address: Any) -> Any:
        """A sixteen of a unit as float32."""
        return builder.sitofp(builder.zext(take(builder, address), _INTEGERS), _FLOATS)

    return load_sixteen


def _bits(shift: int, mask: int) -> Any:
    def take(builder: Any, address: Any) -> Any:
        packed = _shift_down(builder, _every_fourth_four(builder, address), shift)
        return builder.and_(packed, _constant(_SIXTEEN, mask))

    return _sixteen(take)


def _top_bits(builder: Any, address: Any) -> Any:
    parts = [_every_fourth_four(builder, builder.add(address, I64(64 * i))) for i in range(3)]
    return _tops(builder, *parts)


# Of the unit whose first byte for that sixteen is at the address; for the fourth unit of int6k it
# is that of the first unit.
low_nibbles_of, high_nibbles_of, low_sixes_of = _bits(0, 15), _bits(4, 15), _bits(0, 63)
top_sixes_of = _sixteen(_top_bits)


# --- panels for prompts ---------------------------------------------------------------------

_ROWS = (types.int64,) * 3  # address of the first of sixteen rows, their distance, the last there


def _thirty_two(builder: Any, address: Any, group: Any, shift: Any) -> Any:
    """The bytes of group 0 or 1 of the unit at an address, shifted down: fours 0, 4, 1, 5, ..."""
    pairs = load_unaligned(builder, address, ir.VectorType(I64, 8))
    places = builder.add(builder.shl(group, I64(5)), shift)
    alone = builder.insert_element(ir.Constant(pairs.type, ir.Undefined), places, I32(0))
    moved = builder.lshr(pairs, _pick(builder, alone, alone, [0] * 8))
    return builder.bitcast(builder.trunc(moved, ir.VectorType(I32, 8)), _THIRTY_TWO)


def _store_panel(builder: Any, out: Any, rows: list[Any], zero: int) -> None:
    """Rows of 32 bytes, less `zero`, as columns of pairs in the order of the inputs."""
    words = []
    for numbers in rows:
        shorts = builder.sub(builder.zext(numbers, _SHORTS), _constant(_SHORTS, zero))
        words.append(builder.bitcast(shorts, _INTEGERS))
    # The four that stands at place m is the one of inputs 4 n: n = m % 2 * 4 + m // 2.
    order = [2 * (m % 2 * 4 + m // 2) + odd for m in range(8) for odd in (0, 1)]
    store_columns(builder, words, out, I64(ROW), order)


@define(types.none, types.int64, *_ROWS, types.int64)
def turn_fours(builder: Any, out: Any, a: Any, stride: Any, last: Any, group: Any) -> Any:
    """Group 0-3 (of 32 inputs) of two int4k units: pairs of 16-bit integers, by columns."""
    odd, shift = builder.and_(group, I64(1)), builder.shl(builder.and_(group, I64(2)), I64(1))
    rows = []
    for i in range(16):
        packed = _thirty_two(builder, row_address(builder, a, stride, i, last), odd, shift)
        rows.append(builder.and_(packed, _constant(_THIRTY_TWO, 15)))
    _store_panel(builder, out, rows, 0)


@define(types.none, types.int64, *_ROWS, types.int64)
def turn_low_sixes(builder: Any, out: Any, a: Any, stride: Any, last: Any, group: Any) -> Any:
    """Group 0 or 1 of one of the first three units of int6k, less 32, as `turn_fours`."""
    rows = []
    for i in range(16):
        packed = _thirty_two(builder, row_address(builder, a, stride, i, last), group, I64(0))
        rows.append(builder.and_(packed, _constant(_THIRTY_TWO, 63)))
    _store_panel(builder, out, rows, 32)


@define(types.none, types.int64, *_ROWS, types.int64)
def turn_top_sixes(builder: Any, out: Any, a: Any, stride: Any, last: Any, group: Any) -> Any:
    """Group 0 or 1 of the fourth unit of the int6k superblock at `a`, as `turn_low_sixes`."""
    rows = []
    for i in range(16):
        row = row_address(builder, a, stride, i, last)
        places = [builder.add(row, I64(64 * unit)) for unit in range(3)]
        rows.append(_tops(builder, *(_thirty_two(builder, p, group, I64(0)) for p in places)))
    _store_panel(builder, out, rows, 32)


def _byte_column(signed: bool) -> Any:
    @define(vector, *_ROWS)
    def load_column(builder: Any, a: Any, stride: Any, last: Any) -> Any:
        """One byte of each of sixteen rows as float32."""
        column = ir.Constant(_SIXTEEN, ir.Undefined)
        for i in range(16):
            value = load_unaligned(builder, row_address(builder, a, stride, i, last), I8)
            column = builder.insert_element(column, value, I32(i))
        widen = builder.sext if signed else builder.zext
        return builder.sitofp(widen(column, _INTEGERS), _FLOATS)

    return load_column


load_i8_column, load_u8_column = _byte_column(True), _byte_column(False)
