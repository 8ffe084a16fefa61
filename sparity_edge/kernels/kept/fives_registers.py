"""Five-bit numbers in registers: int5 and int5k, by blocks of sixteen groups, at last fewer.

    bits of     7         6-5       4-0           vector v holds inputs 4 v ... 4 v + 3 of group 0,
    line 0      v5: 4     v5: 3-2   v0            then of group 1 and so on, as in `block_dots`;
    line 1      v7: 1     v5: 1-0   v1            v5: 4 is the highest bit of each of its numbers
    line 2      v6: 4     v6: 3-2   v2
    line 3      v7: 0     v6: 1-0   v3
    line 4      v7: 4     v7: 3-2   v4

A line has four bytes for each group: 64, or fewer in the last block of a row. Vectors 5 to 7 are
taken where their upper bits stand, eight times too large: 20 instructions for 512 numbers, where
nibbles with a plane of fifth bits would take 35. docs/format.md draws the bytes.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.batch.register_tiles import write_weights
from sparity_edge.kernels.simd.block_dots import DIGITS, block, digit_sums, load_lines
from sparity_edge.kernels.simd.integer_dots import carry, dot_first, dot_second
from sparity_edge.kernels.simd.ir import (
    BYTES,
    FLOATS,
    I8,
    I16,
    I64,
    INTEGERS,
    concatenate,
    constant,
    define,
    join,
    load_from,
    mask_bits,
    members,
    shift_right,
    shuffle,
    splat,
    struct_type,
)
from sparity_edge.kernels.simd.kquants import store_pairs
from sparity_edge.kernels.simd.memory import L1, NON_TEMPORAL
from sparity_edge.kernels.simd.transposes import load_rows
from sparity_edge.kernels.simd.vectors import vector

LINES, VECTORS = 5, 8
WHOLE = 5  # vectors that stand in the low bits
_FOUR, _HALF = ir.VectorType(I8, 4), ir.VectorType(I8, 32)


def _upper(builder: Any, line: Any) -> Any:
    """The top three bits of every byte, where they stand."""
    return mask_bits(builder, line, 0xE0 - 0x100)


def _moved(builder: Any, line: Any, places: int, mask: int) -> Any:
    return mask_bits(builder, shift_right(builder, line, places), mask)


def _sixth(builder: Any, upper: Any, lower: Any) -> Any:
    """Vector 5 of lines 0 and 1, or vector 6 of lines 2 and 3; eight times too large."""
    return builder.or_(_upper(builder, upper), _moved(builder, lower, 2, 0x18))


def _eighth(builder: Any, upper: Any, middle: Any, last: Any) -> Any:
    """Vector 7 of lines 4, 1 and 3; eight times too large."""
    lower = builder.or_(_moved(builder, middle, 3, 0x10), _moved(builder, last, 4, 0x08))
    return builder.or_(_upper(builder, upper), lower)


def _vectors(builder: Any, lines: list[Any]) -> list[Any]:
    """Eight vectors of five lines, the last three eight times too large."""
    a, b, c, d, e = lines
    more = [_sixth(builder, a, b), _sixth(builder, c, d), _eighth(builder, e, b, d)]
    return [*(mask_bits(builder, line, 31) for line in lines), *more]


# --- products ---------------------------------------------------------------------------------


def _loading(level: int) -> Any:
    @define(block, types.int64, types.int64)
    def load_fives(builder: Any, numbers: Any, ahead: Any) -> Any:
        """A block of sixteen groups; prefetches 320 bytes from `ahead` on."""
        return join(builder, _vectors(builder, load_lines(builder, numbers, ahead, LINES, level)))

    return load_fives


# What is prefetched is used once, or it goes into L2 when L1 has no room for it until then.
load_fives, load_fives_near = _loading(NON_TEMPORAL), _loading(L1)


@define(block, types.int64, types.int64)
def load_last_fives(builder: Any, numbers: Any, width: Any) -> Any:
    """The block at the end of a row, whose lines have `width` bytes; other lanes hold whatever."""
    places = [builder.add(numbers, builder.mul(width, I64(line))) for line in range(LINES)]
    return join(builder, _vectors(builder, [load_from(builder, each, BYTES) for each in places]))


@define(vector, block, types.int64)
def fives_block_dot(builder: Any, weights: Any, digits: Any) -> Any:
    """Of each group the sum of products with a block of activations (`store_block_digits`).

    Sums in place stay below 248 * 12 * 2**15 < 2**27.
    """
    numbers = members(builder, weights, VECTORS)
    whole = digit_sums(builder, numbers[:WHOLE], digits, 0)
    in_place = digit_sums(builder, numbers[WHOLE:], digits, WHOLE)
    sums = builder.add(whole, builder.ashr(in_place, constant(INTEGERS, 3)))
    return builder.sitofp(sums, FLOATS)


# Of eight groups or fewer two vectors stand side by side in one: these, the last eight times too
# large. Rows of 576 take 0.8 of the time with AVX2 (AMD EPYC as haswell; bench/kernels.py).
_PAIRS = ((0, 2), (1, 3), (4, 7), (5, 6))
narrow_block = struct_type("narrow_block", BYTES, len(_PAIRS))


@define(narrow_block, types.int64, types.int64)
def load_narrow_fives(builder: Any, numbers: Any, width: Any) -> Any:
    """`load_last_fives` of eight groups or fewer, the vectors of _PAIRS side by side."""
    places = [builder.add(numbers, builder.mul(width, I64(line))) for line in range(LINES)]
    a, b, c, d, e = (load_from(builder, each, _HALF) for each in places)
    upper, lower = concatenate(builder, [a, c]), concatenate(builder, [b, d])
    last = shift_right(builder, _eighth(builder, e, b, d), 3)
    whole = [
        mask_bits(builder, upper, 31),
        mask_bits(builder, lower, 31),
        concatenate(builder, [mask_bits(builder, e, 31), last]),
    ]
    return join(builder, [*whole, _sixth(builder, upper, lower)])


@define(vector, narrow_block, types.int64)
def narrow_fives_dot(builder: Any, weights: Any, digits: Any) -> Any:
    """`fives_block_dot` of what `load_narrow_fives` gives; lanes from 8 on are zero."""
    sums = constant(INTEGERS, 0)
    for index, numbers in enumerate(members(builder, weights, len(_PAIRS))):
        first, second = (
            concatenate(
                builder,
                [load_from(builder, digits, _HALF, start + 64 * each) for each in _PAIRS[index]],
            )
            for start in (0, DIGITS)
        )
        own = carry(builder, dot_first(builder, constant(INTEGERS, 0), numbers, first))
        own = dot_second(builder, own, numbers, second)
        if _PAIRS[index] == (5, 6):
            own = builder.ashr(own, constant(INTEGERS, 3))
        sums = builder.add(sums, own)
    folded = builder.add(sums, shuffle(builder, sums, sums, [lane ^ 8 for lane in range(16)]))
    lanes = [lane if lane < 8 else 16 for lane in range(16)]
    folded = shuffle(builder, folded, constant(INTEGERS, 0), lanes)
    return builder.sitofp(folded, FLOATS)


@define(types.none, types.int64, types.int64, types.int64)
def store_fives(builder: Any, numbers: Any, width: Any, to: Any) -> Any:
    """Unpack a block, whose lines have `width` bytes, to where tiles read its vectors."""
    places = [builder.add(numbers, builder.mul(width, I64(line))) for line in range(LINES)]
    vectors = _vectors(builder, [load_from(builder, each, BYTES) for each in places])
    vectors[WHOLE:] = [shift_right(builder, each, 3) for each in vectors[WHOLE:]]
    for index, each in enumerate(vectors):
        write_weights(builder, each, to, index)


# --- floats -----------------------------------------------------------------------------------


def _sixteen(first: int) -> Any:
    @define(vector, types.int64, types.int64)
    def load_sixteen(builder: Any, address: Any, width: Any) -> Any:
        """Four numbers each of four vectors that follow each other, as float32."""
        places = [builder.add(address, builder.mul(width, I64(line))) for line in range(LINES)]
        fours = _vectors(builder, [load_from(builder, each, _FOUR) for each in places])
        fours[WHOLE:] = [shift_right(builder, each, 3) for each in fours[WHOLE:]]
        joined = concatenate(builder, fours[first : first + 4])
        return builder.sitofp(builder.zext(joined, INTEGERS), FLOATS)

    return load_sixteen


# Of the group whose fours stand at an address, lines `width` bytes apart: half of its inputs.
load_first_half, load_second_half = _sixteen(0), _sixteen(4)


# --- panels for prefill: as drawn in `transposes` ---------------------------------------------


def _transposing(lines: int, join_lines: Any, places: int) -> Any:
    """A function for vectors that come of so many lines, whose addresses it takes."""
    parameters = [types.int64] * (lines + 4)

    @define(types.none, *parameters)
    def transpose(builder: Any, out: Any, stride: Any, last: Any, zero: Any, *first: Any) -> Any:
        """A vector of eight groups of sixteen rows, less `zero`: pairs by columns."""
        rows = [list(load_rows(builder, (each, stride, last), _HALF)) for each in first]
        numbers = [
            shift_right(builder, join_lines(builder, *each), places)
            for each in zip(*rows, strict=True)
        ]
        store_pairs(builder, out, numbers, splat(builder, builder.trunc(zero, I16), 32))

    return transpose


transpose_low = _transposing(1, lambda builder, line: mask_bits(builder, line, 31), 0)
transpose_sixth, transpose_eighth = _transposing(2, _sixth, 3), _transposing(3, _eighth, 3)
