"""Vectors of numbers in superblocks (int4k, int6k), four inputs of a group in every lane.

A block is 512 inputs, so that its sixteen groups of 32 are the lanes of a vector; the last block of
a row may be half of one, and then two lanes share a group. Everything here is an intrinsic, as in
`simd`.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.bytewise import byte_vector, digits_of, integer_vector
from sparity_edge.kernels.simd.cpu import features
from sparity_edge.kernels.simd.float_tiles import ROW, row_address, store_columns
from sparity_edge.kernels.simd.intrinsics import F32, I8, I16, I32, I64, at, define, load_unaligned
from sparity_edge.kernels.simd.products import carry
from sparity_edge.kernels.simd.vectors import _half_to_float, vector
from sparity_edge.kernels.simd.word_tiles import W_MINIMA, W_SCALES, W_UNIT

_BYTES = ir.VectorType(I8, 64)
_FOURS = ir.VectorType(I32, 4)
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


@define(integer_vector, types.int64)
def load_integers(builder: Any, address: Any) -> Any:
    """Sixteen int32."""
    return load_unaligned(builder, address, _INTEGERS)


@define(integer_vector, integer_vector, integer_vector)
def join_halves(builder: Any, first: Any, second: Any) -> Any:
    """Sums of products with whole activations from those with their halves (see `products`)."""
    return builder.add(second, carry(builder, first))


@define(integer_vector, integer_vector)
def sixteenth(builder: Any, sums: Any) -> Any:
    """Sums of `high_nibbles_in_place`, which are 16 times what they should be."""
    return builder.ashr(sums, _constant(_INTEGERS, 4))


@define(integer_vector, integer_vector, integer_vector)
def plus(builder: Any, left: Any, right: Any) -> Any:
    """Sums of integers."""
    return builder.add(left, right)


def _take_sixes(builder: Any, address: Any, groups: int, shifts: list[int]) -> Any:
    """Six of the twelve bits of every group as float32, from bit `shifts[lane]` on.

    Reads the twelve bits of 16 groups, or of 8, which then stand in both halves.
    """
    words = groups * 12 // 16
    starts = [lane % groups * 12 for lane in range(16)]
    pairs = [min(start // 16 + odd, words - 1) for start in starts for odd in (0, 1)]
    places = [start % 16 + shift for start, shift in zip(starts, shifts)]
    packed = load_unaligned(builder, address, ir.VectorType(I16, words))
    spread = builder.bitcast(_pick(builder, packed, packed, pairs), _INTEGERS)
    moved = builder.lshr(spread, ir.Constant(_INTEGERS, places))
    return builder.sitofp(builder.and_(moved, _constant(_INTEGERS, 63)), _FLOATS)


def _sixes(groups: int, shift: int) -> Any:
    @define(vector, types.int64)
    def load_part(builder: Any, address: Any) -> Any:
        """The scale or the minimum of every group."""
        return _take_sixes(builder, address, groups, [shift] * 16)

    return load_part


# Of the groups of a block of int4k, and of half a block.
load_scales, load_minima = _sixes(16, 0), _sixes(16, 6)
load_half_scales, load_half_minima = _sixes(8, 0), _sixes(8, 6)


def _load_factors(builder: Any, address: Any, count: int, lanes: list[int]) -> Any:
    """Of `count` finite float16 those that `lanes` name, as float32."""
    halves = load_unaligned(builder, address, ir.VectorType(I16, count))
    if "f16c" in features():
        values = builder.bitcast(halves, ir.VectorType(ir.HalfType(), count))
        values = builder.fpext(values, ir.VectorType(F32, count))
        return _pick(builder, values, values, lanes)
    spread = _pick(builder, halves, halves, lanes)
    return _half_to_float(builder, builder.zext(spread, _INTEGERS))


def _factors(count: int, lanes: list[int]) -> Any:
    @define(vector, types.int64)
    def load_factors(builder: Any, address: Any) -> Any:
        """Some of `count` float16, each in eight or sixteen lanes."""
        return _load_factors(builder, address, count, lanes)

    return load_factors


# What scales and minima of a block of int4k are multiples of, and of half a block.
scale_factors, least_factors = _factors(4, [0] * 8 + [2] * 8), _factors(4, [1] * 8 + [3] * 8)
half_scale_factor, half_least_factor = _factors(2, [0] * 16), _factors(2, [1] * 16)
# Of int6k.
six_factors, half_six_factor = _factors(2, [0] * 8 + [1] * 8), _factors(1, [0] * 16)


@define(vector, types.int64, vector)
def store_quad_digits(builder: Any, address: Any, values: Any) -> Any:
    """Round 16 numbers, write each four of high digits 128 bytes on, low digits 64 bytes behind.

    Returns:
        The rounded numbers.
    """
    whole, *digits = digits_of(builder, values)
    for offset, digit in zip((0, 64), digits):
        fours = builder.bitcast(digit, _FOURS)
        for index in range(4):
            place = at(builder, builder.add(address, I64(offset + 128 * index)), I32)
            builder.store(builder.extract_element(fours, I32(index)), place, align=1)
    return whole


@define(types.none, types.int64, types.float32)
def store_integer(builder: Any, address: Any, value: Any) -> Any:
    """Write a whole number as int32."""
    builder.store(builder.fptosi(value, I32), at(builder, address, I32), align=1)


# --- floats ---------------------------------------------------------------------------------


def _quads(builder: Any, address: Any, count: int) -> list[Any]:
    """Four bytes each, 64 bytes apart."""
    places = [builder.add(address, I64(64 * index)) for index in range(count)]
    return [load_unaligned(builder, place, ir.VectorType(I8, 4)) for place in places]


def _join_quads(builder: Any, quads: list[Any]) -> Any:
    """Four times four bytes as sixteen float32."""
    halves = [_pick(builder, quads[i], quads[i + 1], list(range(8))) for i in (0, 2)]
    whole = _pick(builder, halves[0], halves[1], list(range(16)))
    return builder.sitofp(builder.zext(whole, _INTEGERS), _FLOATS)


@define(vector, types.int64)
def load_fours(builder: Any, address: Any) -> Any:
    """Sixteen int4k numbers of a group as float32."""
    quads = []
    for packed in _quads(builder, address, 2):
        quads += [builder.and_(packed, _constant(packed.type, 15)), _shift_down(builder, packed, 4)]
    return _join_quads(builder, quads)


@define(vector, types.int64)
def load_sixes(builder: Any, address: Any) -> Any:
    """Sixteen int6k numbers of a group, 0..63, as float32."""
    packed = _quads(builder, address, 3)
    low = [builder.and_(each, _constant(each.type, 63)) for each in packed]
    return _join_quads(builder, [*low, _tops(builder, *packed)])


# --- panels for prompts ---------------------------------------------------------------------

_ROWS = (types.int64,) * 3  # address of the first of sixteen rows, their distance, the last there
# Where columns of eight groups go, in rows of a panel: two pairs of inputs each, and two scales.
_PAIRS = [group * W_UNIT // ROW + pair for group in range(8) for pair in (0, 1)]
_SCALES = [(group * W_UNIT + place) // ROW for place in (W_SCALES, W_MINIMA) for group in range(8)]


def _store_pairs(builder: Any, out: Any, rows: list[Any], zero: int) -> None:
    """Rows of 32 bytes, less `zero`, as columns of pairs: four inputs of each of eight groups."""
    words = []
    for numbers in rows:
        shorts = builder.sub(builder.zext(numbers, _SHORTS), _constant(_SHORTS, zero))
        words.append(builder.bitcast(shorts, _INTEGERS))
    store_columns(builder, words, out, I64(ROW), _PAIRS)


@define(types.none, types.int64, *_ROWS, types.int64)
def turn_sixes(builder: Any, out: Any, a: Any, stride: Any, last: Any, index: Any) -> Any:
    """Four inputs of eight groups of int6k, less 32: pairs by columns; `index` is 0, 1 or 2."""
    place = builder.add(a, builder.shl(index, I64(6)))
    rows = []
    for i in range(16):
        row = row_address(builder, place, stride, i, last)
        packed = load_unaligned(builder, row, _THIRTY_TWO)
        rows.append(builder.and_(packed, _constant(_THIRTY_TWO, 63)))
    _store_pairs(builder, out, rows, 32)


@define(types.none, types.int64, *_ROWS)
def turn_top_sixes(builder: Any, out: Any, a: Any, stride: Any, last: Any) -> Any:
    """The four inputs that stand in the top bits of three times 32 bytes, as `turn_sixes`."""
    rows = []
    for i in range(16):
        row = row_address(builder, a, stride, i, last)
        places = [builder.add(row, I64(64 * index)) for index in range(3)]
        packed = [load_unaligned(builder, place, _THIRTY_TWO) for place in places]
        rows.append(_tops(builder, *packed))
    _store_pairs(builder, out, rows, 32)


@define(types.none, types.int64, types.int64, *_ROWS)
def turn_int4k_scales(
    builder: Any, out: Any, scales: Any, factors: Any, stride: Any, last: Any
) -> Any:
    """Scales and minima (taken off) of eight groups of sixteen rows, to their places."""
    signs = ir.Constant(_FLOATS, [1.0] * 8 + [-1.0] * 8)
    rows = []
    for i in range(16):
        place = row_address(builder, scales, stride, i, last)
        sixes = _take_sixes(builder, place, 8, [0] * 8 + [6] * 8)
        place = row_address(builder, factors, stride, i, last)
        factor = _load_factors(builder, place, 2, [0] * 8 + [1] * 8)
        rows.append(builder.fmul(signs, builder.fmul(factor, sixes)))
    store_columns(builder, rows, out, I64(ROW), _SCALES)


@define(types.none, types.int64, types.int64, types.int64, *_ROWS)
def turn_int6k_scales(
    builder: Any, out: Any, even: Any, odd: Any, factors: Any, stride: Any, last: Any
) -> Any:
    """Both scales of eight groups of sixteen rows, to their places."""
    rows = []
    for i in range(16):
        halves = []
        for address in (even, odd):
            place = row_address(builder, address, stride, i, last)
            halves.append(load_unaligned(builder, place, ir.VectorType(I8, 8)))
        both = _pick(builder, halves[0], halves[1], list(range(16)))
        numbers = builder.sext(both, _INTEGERS)
        place = row_address(builder, factors, stride, i, last)
        factor = _load_factors(builder, place, 1, [0] * 16)
        rows.append(builder.fmul(factor, builder.sitofp(numbers, _FLOATS)))
    store_columns(builder, rows, out, I64(ROW), _SCALES)
