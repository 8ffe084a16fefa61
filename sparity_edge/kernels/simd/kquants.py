"""Vectors of K-quants (int4k, int6k): four inputs of a group in every lane, and scales of groups.

    a block of 512    lane j (0-15)   group j: inputs 32 j + 4 v ... + 3         vectors v = 0 ... 7
    half a block      lanes j, j + 8  group j: inputs 32 j + 4 v ...,            vectors v = 0 ... 3
                                               32 j + 16 + 4 v ...

    int4k   bits 3-0 of 64 bytes are vector 2 k, bits 7-4 vector 2 k + 1
    int6k   bits 5-0 of three times 64 bytes are vectors 0, 1, 2 (then 4, 5, 6); of vector 3 (7)
            the first 64 have bits 1-0 in their bits 7-6, the second bits 3-2, the third bits 5-4

A block is two superblocks of llama.cpp; the last block of a row may be half of one. docs/format.md
draws the bytes. Everything here is an intrinsic.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.byte_dots import storing_digits
from sparity_edge.kernels.simd.float_tiles import ROW
from sparity_edge.kernels.simd.int16_tiles import W_MINIMA, W_SCALES, W_UNIT
from sparity_edge.kernels.simd.integer_dots import carry
from sparity_edge.kernels.simd.ir import (
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
)
from sparity_edge.kernels.simd.transposes import ROWS, load_rows, row_address, store_columns
from sparity_edge.kernels.simd.vectors import byte_vector, integer_vector, vector

_HALF = ir.VectorType(I8, 32)


def top_bits(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """The number whose bits 0-1, 2-3 and 4-5 are the top bits of three bytes."""
    parts = [
        mask_bits(builder, shift_right(builder, each, 6 - places), 3 << places)
        for each, places in ((a, 0), (b, 2), (c, 4))
    ]
    return builder.or_(builder.or_(parts[0], parts[1]), parts[2])


# --- products ---------------------------------------------------------------------------------


@define(byte_vector, byte_vector)
def low_sixes(builder: Any, packed: Any) -> Any:
    """The low six bits of every byte."""
    return mask_bits(builder, packed, 63)


@define(byte_vector, byte_vector, byte_vector, byte_vector)
def top_sixes(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """The fourth vector of int6k, from the top bits of the other three."""
    return top_bits(builder, a, b, c)


@define(integer_vector, integer_vector, integer_vector)
def join_halves(builder: Any, first: Any, second: Any) -> Any:
    """Sums of products with whole activations from those with their halves (`integer_dots`)."""
    return builder.add(second, carry(builder, first))


@define(integer_vector, integer_vector)
def sixteenth(builder: Any, sums: Any) -> Any:
    """Sums of `high_nibbles_in_place`, which are 16 times what they should be."""
    return builder.ashr(sums, constant(INTEGERS, 4))


@define(integer_vector, integer_vector, integer_vector)
def plus(builder: Any, left: Any, right: Any) -> Any:
    """Sums of integers."""
    return builder.add(left, right)


store_kquant_digits = storing_digits(low_at=64, distance=128)


# --- scales -----------------------------------------------------------------------------------


def take_sixes(builder: Any, address: Any, groups: int, shifts: list[int]) -> Any:
    """Six of the twelve bits of every group as float32, from bit `shifts[lane]` on.

    Reads the twelve bits of 16 groups, or of 8, which then stand in both halves.
    """
    words = groups * 12 // 16
    starts = [lane % groups * 12 for lane in range(16)]
    pairs = [min(start // 16 + odd, words - 1) for start in starts for odd in (0, 1)]
    places = [start % 16 + shift for start, shift in zip(starts, shifts)]
    packed = load_from(builder, address, ir.VectorType(I16, words))
    spread = builder.bitcast(shuffle(builder, packed, packed, pairs), INTEGERS)
    moved = builder.lshr(spread, ir.Constant(INTEGERS, places))
    return builder.sitofp(mask_bits(builder, moved, 63), FLOATS)


def _sixes(groups: int, shift: int) -> Any:
    @define(vector, types.int64)
    def load_part(builder: Any, address: Any) -> Any:
        """The scale or the minimum of every group, 0..63."""
        return take_sixes(builder, address, groups, [shift] * 16)

    return load_part


# Of the groups of a block of int4k, and of half a block.
load_scales, load_minima = _sixes(16, 0), _sixes(16, 6)
load_half_scales, load_half_minima = _sixes(8, 0), _sixes(8, 6)


def _load_factors(builder: Any, address: Any, count: int, lanes: list[int]) -> Any:
    """Of `count` finite float16 those that `lanes` name, as float32."""
    values = halves_to_floats(builder, load_from(builder, address, ir.VectorType(I16, count)))
    return shuffle(builder, values, values, lanes)


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


# --- floats -----------------------------------------------------------------------------------


def _fours(builder: Any, address: Any, count: int) -> list[Any]:
    """Four bytes each, 64 bytes apart."""
    return [load_from(builder, address, ir.VectorType(I8, 4), 64 * index) for index in range(count)]


def _to_floats(builder: Any, fours: list[Any]) -> Any:
    """Four times four bytes as sixteen float32."""
    return builder.sitofp(builder.zext(concatenate(builder, fours), INTEGERS), FLOATS)


@define(vector, types.int64)
def load_fours(builder: Any, address: Any) -> Any:
    """Sixteen int4k numbers of a group as float32."""
    fours = []
    for packed in _fours(builder, address, 2):
        fours += [mask_bits(builder, packed, 15), shift_right(builder, packed, 4)]
    return _to_floats(builder, fours)


@define(vector, types.int64)
def load_sixes(builder: Any, address: Any) -> Any:
    """Sixteen int6k numbers of a group, 0..63, as float32."""
    packed = _fours(builder, address, 3)
    low = [mask_bits(builder, each, 63) for each in packed]
    return _to_floats(builder, [*low, top_bits(builder, *packed)])


# --- panels for prefill: as drawn in `transposes` ---------------------------------------------

# Where columns of eight groups go, in rows of a panel: two pairs of inputs each, and two scales.
_PAIRS = [group * W_UNIT // ROW + pair for group in range(8) for pair in (0, 1)]
SCALES_OF_PANEL = [
    (group * W_UNIT + place) // ROW for place in (W_SCALES, W_MINIMA) for group in range(8)
]


def store_pairs(builder: Any, out: Any, rows: list[Any], zeros: Any) -> None:
    """Rows of 32 bytes, less `zeros`, as columns of pairs: four inputs of each of eight groups."""
    pairs = []
    for numbers in rows:
        shorts = builder.sub(builder.zext(numbers, SHORTS), zeros)
        pairs.append(builder.bitcast(shorts, INTEGERS))
    store_columns(builder, pairs, out, I64(ROW), _PAIRS)


@define(types.none, types.int64, *ROWS, types.int64)
def transpose_sixes(builder: Any, out: Any, a: Any, stride: Any, last: Any, index: Any) -> Any:
    """Four inputs of eight groups of int6k, less 32: pairs by columns; `index` is 0, 1 or 2."""
    place = builder.add(a, builder.shl(index, I64(6)))
    rows = load_rows(builder, (place, stride, last), _HALF)
    sixes = [mask_bits(builder, each, 63) for each in rows]
    store_pairs(builder, out, sixes, constant(SHORTS, 32))


@define(types.none, types.int64, *ROWS)
def transpose_top_sixes(builder: Any, out: Any, a: Any, stride: Any, last: Any) -> Any:
    """`transpose_sixes` of the four inputs that stand in the top bits of three times 32 bytes."""
    rows = []
    for i in range(16):
        row = row_address(builder, a, stride, i, last)
        rows.append(top_bits(builder, *(load_from(builder, row, _HALF, 64 * k) for k in range(3))))
    store_pairs(builder, out, rows, constant(SHORTS, 32))


@define(types.none, types.int64, types.int64, types.int64, types.int64, types.int64)
def transpose_int4k_scales(
    builder: Any, out: Any, scales: Any, factors: Any, stride: Any, last: Any
) -> Any:
    """Scales and minima (negated) of eight groups of sixteen rows, to W_SCALES and W_MINIMA."""
    signs = ir.Constant(FLOATS, [1.0] * 8 + [-1.0] * 8)
    rows = []
    for i in range(16):
        place = row_address(builder, scales, stride, i, last)
        sixes = take_sixes(builder, place, 8, [0] * 8 + [6] * 8)
        place = row_address(builder, factors, stride, i, last)
        factor = _load_factors(builder, place, 2, [0] * 8 + [1] * 8)
        rows.append(builder.fmul(signs, builder.fmul(factor, sixes)))
    store_columns(builder, rows, out, I64(ROW), SCALES_OF_PANEL)


@define(types.none, types.int64, types.int64, types.int64, types.int64, types.int64, types.int64)
def transpose_int6k_scales(
    builder: Any, out: Any, even: Any, odd: Any, factors: Any, stride: Any, last: Any
) -> Any:
    """Both scales of eight groups of sixteen rows, to W_SCALES and W_MINIMA."""
    rows = []
    for i in range(16):
        places = [row_address(builder, address, stride, i, last) for address in (even, odd)]
        halves = [load_from(builder, place, ir.VectorType(I8, 8)) for place in places]
        numbers = builder.sext(concatenate(builder, halves), INTEGERS)
        place = row_address(builder, factors, stride, i, last)
        factor = _load_factors(builder, place, 1, [0] * 16)
        rows.append(builder.fmul(factor, builder.sitofp(numbers, FLOATS)))
    store_columns(builder, rows, out, I64(ROW), SCALES_OF_PANEL)
