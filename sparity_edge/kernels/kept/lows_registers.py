"""Numbers of two and three bits in registers: int2k and int3k.

    int2k   line h          bits 0-1, 2-3, 4-5, 6-7     vectors 4 h, 4 h + 1, 4 h + 2, 4 h + 3
    int3k   line i = 0-2    bits 0-2, 3-5               vectors 2 i, 2 i + 1
            line 0, line 1  bits 6-7                    upper bits of vector 6, of vector 7
            line 2          bit 6, bit 7                lowest bit of vector 6, of vector 7

Vectors of a block of 512 inputs, and of half a block at the end of a row, are those of K-quants
(`simd/kquants.py` draws them). Half a block has four vectors: in int2k one line; in int3k line 0,
whose bits 6-7 are the upper ones of vector 2, and 32 bytes of nibbles, of which bits 0-2 are vector
3 and bit 3 is the lowest of vector 2: the low nibbles for lanes 0-7, the high ones for lanes 8-15.
Numbers are multiplied where they stand, 4, 8 or 32 times too large.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.batch.register_tiles import write_weights
from sparity_edge.kernels.simd.float_tiles import ROW
from sparity_edge.kernels.simd.int16_tiles import W_LEAST, W_UNIT
from sparity_edge.kernels.simd.ir import (
    BYTES,
    FLOATS,
    I8,
    I16,
    I64,
    INTEGERS,
    SHORTS,
    concatenate,
    constant,
    define,
    halves_to_floats,
    load_from,
    mask_bits,
    shift_right,
    shuffle,
    splat,
)
from sparity_edge.kernels.simd.kquants import (
    SCALES_OF_PANEL,
    store_pairs,
    take_sixes,
)
from sparity_edge.kernels.simd.transposes import load_rows, row_address, store_columns
from sparity_edge.kernels.simd.vectors import byte_vector, integer_vector, vector

_FOUR, _HALF = ir.VectorType(I8, 4), ir.VectorType(I8, 32)
_MINIMA_OF_PANEL = [(group * W_UNIT + place) // ROW for place in W_LEAST for group in range(8)]
_TOP = 0xC0 - 0x100  # bits 6 and 7 as a signed byte


# --- products ---------------------------------------------------------------------------------


def _masked(mask: int, places: int = 0) -> Any:
    @define(byte_vector, byte_vector)
    def take(builder: Any, packed: Any) -> Any:
        """Some bits of every byte."""
        return mask_bits(builder, shift_right(builder, packed, places), mask)

    return take


# Vectors of int2k: as they are and four times too large; likewise of the upper nibbles.
first_twos, second_twos = _masked(0x03), _masked(0x0C)
third_twos, fourth_twos = _masked(0x03, 4), _masked(0x0C, 4)
# Vectors of int3k: as they are, and eight times too large.
low_threes, high_threes = _masked(0x07), _masked(0x38)


def _above(places: int, bit: int) -> Any:
    @define(byte_vector, byte_vector, byte_vector)
    def join_top(builder: Any, upper: Any, lowest: Any) -> Any:
        """A vector of int3k of its upper two bits and the lowest one, 32 times too large."""
        moved = shift_right(builder, lowest, -places) if places < 0 else lowest
        if places > 0:
            moved = builder.shl(lowest, constant(BYTES, places))
        assert bit + places == 5
        return builder.or_(mask_bits(builder, upper, _TOP), mask_bits(builder, moved, 0x20))

    return join_top


# Vectors 6 and 7 of lines 0 and 2, 1 and 2; vector 2 of half a block of line 0 and the nibbles.
seventh_threes, eighth_threes, third_of_half = _above(-1, 6), _above(-2, 7), _above(2, 3)


@define(types.none, types.int64, types.int64)
def store_twos(builder: Any, numbers: Any, to: Any) -> Any:
    """Unpack a block of int2k to where tiles read its vectors."""
    for line in range(2):
        packed = load_from(builder, numbers, BYTES, 64 * line)
        for index in range(4):
            write_weights(builder, _moved(builder, packed, 2 * index, 3), to, 4 * line + index)


@define(types.none, types.int64, types.int64)
def store_threes(builder: Any, numbers: Any, to: Any) -> Any:
    """Unpack a block of int3k to where tiles read its vectors."""
    lines = [load_from(builder, numbers, BYTES, 64 * line) for line in range(3)]
    for line, packed in enumerate(lines):
        for index in range(2):
            write_weights(builder, _moved(builder, packed, 3 * index, 7), to, 2 * line + index)
    for index in range(2):
        upper, lowest = _moved(builder, lines[index], 5, 6), _moved(builder, lines[2], 6 + index, 1)
        write_weights(builder, builder.or_(upper, lowest), to, 6 + index)


def _divided(places: int) -> Any:
    @define(integer_vector, integer_vector)
    def divide(builder: Any, sums: Any) -> Any:
        """Sums of numbers that were too large."""
        return builder.ashr(sums, constant(INTEGERS, places))

    return divide


quarter, eighth, thirty_second = _divided(2), _divided(3), _divided(5)


@define(vector, types.int64)
def half_three_scales(builder: Any, scales: Any) -> Any:
    """Scales 0..63 of half a block of int3k: of first halves of groups, then of second ones."""
    return take_sixes(builder, scales, 8, [0] * 8 + [6] * 8)


# --- floats -----------------------------------------------------------------------------------


def _lines(builder: Any, address: Any, count: int) -> list[Any]:
    return [load_from(builder, address, _FOUR, 64 * line) for line in range(count)]


def _moved(builder: Any, line: Any, places: int, mask: int) -> Any:
    return mask_bits(builder, shift_right(builder, line, places), mask)


def _to_floats(builder: Any, fours: list[Any], zero: int) -> Any:
    numbers = builder.zext(concatenate(builder, fours), INTEGERS)
    return builder.sitofp(builder.sub(numbers, constant(INTEGERS, zero)), FLOATS)


@define(vector, types.int64)
def load_twos(builder: Any, address: Any) -> Any:
    """Half the inputs of a group of int2k, whose fours stand at an address, as float32."""
    line = load_from(builder, address, _FOUR)
    return _to_floats(builder, [_moved(builder, line, places, 3) for places in (0, 2, 4, 6)], 0)


@define(vector, types.int64)
def load_first_threes(builder: Any, address: Any) -> Any:
    """The first half of a group of a block of int3k, less 4, as float32."""
    lines = _lines(builder, address, 2)
    return _to_floats(builder, [_moved(builder, each, i, 7) for each in lines for i in (0, 3)], 4)


@define(vector, types.int64)
def load_second_threes(builder: Any, address: Any) -> Any:
    """The second half of a group of a block of int3k, less 4, as float32."""
    a, b, c = _lines(builder, address, 3)
    fours = [_moved(builder, c, places, 7) for places in (0, 3)]
    for upper, bit in ((a, 6), (b, 7)):
        above = _moved(builder, upper, 5, 6)
        fours.append(builder.or_(above, _moved(builder, c, bit, 1)))
    return _to_floats(builder, fours, 4)


def _half_of_half(high: int) -> Any:
    @define(vector, types.int64, types.int64)
    def load_threes(builder: Any, address: Any, nibbles: Any) -> Any:
        """Half of a group of half a block of int3k, less 4, as float32."""
        line, last = (load_from(builder, each, _FOUR) for each in (address, nibbles))
        last = shift_right(builder, last, 4 * high)
        third = builder.or_(_moved(builder, line, 5, 6), _moved(builder, last, 3, 1))
        fours = [_moved(builder, line, places, 7) for places in (0, 3)]
        return _to_floats(builder, [*fours, third, mask_bits(builder, last, 7)], 4)

    return load_threes


first_of_half, second_of_half = _half_of_half(0), _half_of_half(1)


# --- panels for prefill: as drawn in `transposes` ---------------------------------------------


def _take(builder: Any, rows: Any, places: Any, mask: Any) -> Any:
    """Bits of 32 bytes of each of sixteen rows, by a shift and a mask of run time."""
    shift = splat(builder, builder.trunc(places, I16), 16)
    masks = splat(builder, builder.trunc(mask, I8), 32)
    for each in load_rows(builder, rows, _HALF):
        shorts = builder.lshr(builder.bitcast(each, ir.VectorType(I16, 16)), shift)
        yield builder.and_(builder.bitcast(shorts, _HALF), masks)


@define(types.none, *[types.int64] * 5)
def transpose_threes(
    builder: Any, out: Any, place: Any, stride: Any, last: Any, places: Any
) -> Any:
    """Bits places..places+2 of 32 bytes of sixteen rows, less 4: pairs by columns."""
    numbers = list(_take(builder, (place, stride, last), places, I64(7)))
    store_pairs(builder, out, numbers, constant(SHORTS, 4))


@define(types.none, *[types.int64] * 5)
def transpose_twos(builder: Any, out: Any, place: Any, stride: Any, last: Any, places: Any) -> Any:
    """Bits places..places+1 of 32 bytes of sixteen rows: pairs by columns."""
    numbers = list(_take(builder, (place, stride, last), places, I64(3)))
    store_pairs(builder, out, numbers, constant(SHORTS, 0))


@define(types.none, *[types.int64] * 6)
def transpose_top_threes(
    builder: Any, out: Any, upper: Any, lowest: Any, stride: Any, last: Any, bit: Any
) -> Any:
    """Bits 6-7 of 32 bytes above a bit of 32 others of sixteen rows, less 4: pairs by columns."""
    tops = _take(builder, (upper, stride, last), I64(5), I64(6))
    bits = _take(builder, (lowest, stride, last), bit, I64(1))
    numbers = [builder.or_(*pair) for pair in zip(tops, bits, strict=True)]
    store_pairs(builder, out, numbers, constant(SHORTS, 4))


@define(types.none, *[types.int64] * 6)
def transpose_int2k_scales(
    builder: Any, out: Any, first: Any, second: Any, factors: Any, stride: Any, last: Any
) -> Any:
    """Both scales and both minima of eight groups of sixteen rows, to their places in a panel."""
    scales, least, second_halves = [], [], [*range(8, 16)] * 2
    for i in range(16):
        places = [row_address(builder, each, stride, i, last) for each in (first, second)]
        halves = [load_from(builder, place, ir.VectorType(I8, 8)) for place in places]
        packed = concatenate(builder, halves)
        low, high = mask_bits(builder, packed, 15), shift_right(builder, packed, 4)
        place = row_address(builder, factors, stride, i, last)
        pair = halves_to_floats(builder, load_from(builder, place, ir.VectorType(I16, 2)))
        of_scales, of_minima = (
            builder.fmul(
                shuffle(builder, pair, pair, [index] * 16),
                builder.sitofp(builder.zext(nibbles, INTEGERS), FLOATS),
            )
            for index, nibbles in enumerate((low, high))
        )
        scales.append(of_scales)
        # They are taken off: of the first halves as much as they have more than the second.
        others = shuffle(builder, of_minima, of_minima, second_halves)
        signed = builder.fsub(others, of_minima), builder.fneg(of_minima)
        least.append(shuffle(builder, *signed, [*range(8), *range(24, 32)]))
    store_columns(builder, scales, out, I64(ROW), SCALES_OF_PANEL)
    store_columns(builder, least, out, I64(ROW), _MINIMA_OF_PANEL)


@define(types.none, *[types.int64] * 5)
def transpose_int3k_scales(
    builder: Any, out: Any, scales: Any, factors: Any, stride: Any, last: Any
) -> Any:
    """Both scales of eight groups of sixteen rows, to W_SCALES and W_MINIMA."""
    rows = []
    for i in range(16):
        place = row_address(builder, scales, stride, i, last)
        sixes = take_sixes(builder, place, 8, [0] * 8 + [6] * 8)
        place = row_address(builder, factors, stride, i, last)
        factor = halves_to_floats(builder, load_from(builder, place, ir.VectorType(I16, 1)))
        factor = shuffle(builder, factor, factor, [0] * 16)
        rows.append(builder.fmul(factor, builder.fsub(sixes, constant(FLOATS, 32.0))))
    store_columns(builder, rows, out, I64(ROW), SCALES_OF_PANEL)
