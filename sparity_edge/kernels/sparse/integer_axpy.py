"""AXPY of 8-bit and 4-bit rows in integers, four rows at a time: sums += x[i] * row i.

    a lane (32 bits)     row a, row b, row c, row d: the byte of one column in each of four rows

                lanes 0-3     4-7      8-11     12-15        int8: columns of 64 bytes
    vector 0    0-3           16-19    32-35    48-51        int4: byte j is column
    vector 1    4-7           20-23    36-39    52-55          32 (j / 16) + j % 16 (low nibble)
    vector 2    8-11          24-27    40-43    56-59          and 16 columns on (high nibble)
    vector 3    12-15         28-31    44-47    60-63

One instruction (`vpdpbusd`, where the CPU has it) adds four products to a lane; activations are two
signed bytes, high * 256 + low, as in `byte_dots`. Integers: the same bits on every CPU. (16-bit
weights and `vpdpwssd` need 28 vector instructions where this needs 20, and 52 against 34 for int4.)
Sums stay in this order of 128-bit quarters until all groups are added (`sum_orders`):
putting the scales of a group into it is half the work of reordering its sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.cpu import byte_dot, features
from sparity_edge.kernels.simd.integer_dots import carry, dot_first, dot_second, halves_of
from sparity_edge.kernels.simd.ir import (
    FLOATS,
    I8,
    I16,
    I32,
    I64,
    INTEGERS,
    LANES,
    SHORTS,
    concatenate,
    constant,
    define,
    halves_to_floats,
    join,
    load_from,
    members,
    multiply_add,
    shuffle,
    splat,
    store_to,
    struct_type,
)
from sparity_edge.kernels.simd.vectors import vector

_QUARTERS = ir.VectorType(I64, 8)  # of 16 float16: four numbers each
# Lanes that are summed together. Sixteen registers of 32 bytes have no room for the sums of 64
# bytes: they hold those of half of them, and the rows of a block are gone through twice.
WIDTH = LANES if "avx512f" in features() else LANES // 2
LINE_PART, _PAIRS = ir.VectorType(I8, 4 * WIDTH), ir.VectorType(I16, 2 * WIDTH)
_SUMS = ir.VectorType(I32, WIDTH)
# Integers of the columns of that many bytes: sums with low digits, then as many with high ones.
_OF_BYTES, OF_NIBBLES = struct_type("sums8", _SUMS, 8), struct_type("sums16", _SUMS, 16)
# The sums of 64 bytes.
_TILE_OF_BYTES = struct_type("tile8", INTEGERS, 4)
TILE_OF_NIBBLES = struct_type("tile16", INTEGERS, 8)
_FOUR_ROWS = (types.int64,) * 4


# --- orders of columns ------------------------------------------------------------------------


def _interleave(builder: Any, left: Any, right: Any) -> tuple[Any, Any]:
    """Interleaved elements of two vectors, of the lower and of the upper half of each 16 bytes."""
    count = left.type.count
    quarter = 128 // left.type.element.width
    halves = []
    for start in (0, quarter // 2):
        lanes = [
            lane
            for base in range(start, count, quarter)
            for i in range(base, base + quarter // 2)
            for lane in (i, i + count)
        ]
        halves.append(shuffle(builder, left, right, lanes))
    return halves[0], halves[1]


def columns_of_four(builder: Any, rows: Sequence[Any]) -> list[Any]:
    """Four vectors whose 32-bit lanes hold a byte of each of four rows, as drawn above."""
    a, b, c, d = rows
    result: list[Any] = []
    for left, right in zip(_interleave(builder, a, b), _interleave(builder, c, d)):
        left, right = (builder.bitcast(each, _PAIRS) for each in (left, right))
        result += _interleave(builder, left, right)
    return [builder.bitcast(each, _SUMS) for each in result]


def _load_rows(builder: Any, *addresses: Any) -> list[Any]:
    return [load_from(builder, address, LINE_PART) for address in addresses]


# --- scales -----------------------------------------------------------------------------------


def _floats_of(builder: Any, pairs: list[Any]) -> list[Any]:
    """Sixteen float32 from each half of vectors of 32 float16."""
    result = []
    for pair in pairs:
        words = builder.bitcast(pair, SHORTS)
        for start in (0, 16):
            bits = shuffle(builder, words, words, range(start, start + 16))
            result.append(halves_to_floats(builder, bits))
    return result


def _scales8(builder: Any, address: Any) -> list[Any]:
    """64 float16 as four vectors in the order of `columns_of_four`."""
    a, b = (load_from(builder, address, _QUARTERS, 64 * i) for i in range(2))
    orders = ([0, 4, 8, 12, 1, 5, 9, 13], [2, 6, 10, 14, 3, 7, 11, 15])
    return _floats_of(builder, [shuffle(builder, a, b, order) for order in orders])


def _scales16(builder: Any, address: Any) -> list[Any]:
    """128 float16 as eight vectors: those of low nibbles, then those of high ones."""
    a, b, c, d = (load_from(builder, address, _QUARTERS, 64 * i) for i in range(4))
    pairs = []
    for start in (0, 4):
        order = [lane for i in range(start, start + 4) for lane in (i, i + 8)]
        left, right = shuffle(builder, a, b, order), shuffle(builder, c, d, order)
        for lanes in ([0, 1, 8, 9, 2, 3, 10, 11], [4, 5, 12, 13, 6, 7, 14, 15]):
            pairs.append(shuffle(builder, left, right, lanes))
    return _floats_of(builder, pairs)


def add_to(builder: Any, address: Any, products: list[tuple[Any, list[Any]]]) -> None:
    """Add factor * vector to the vectors at an address, for each of the products."""
    for index in range(len(products[0][1])):
        value = load_from(builder, address, FLOATS, 64 * index)
        for factor, vectors in products:
            each = factor[index] if isinstance(factor, list) else factor
            value = multiply_add(builder, vectors[index], each, value)
        store_to(builder, value, address, 64 * index)


def scaled(builder: Any, sums: list[Any], scale: Any) -> list[Any]:
    """Integers as float32, times a vector."""
    return [builder.fmul(builder.sitofp(each, FLOATS), scale) for each in sums]


# --- the sums of 64 bytes ---------------------------------------------------------------------


def start_sums(builder: Any, whole: Any, factors: list[int]) -> Any:
    """Low sums that begin with whole * factor, high ones with zero.

    Offsets are integers, so that what cancels leaves nothing.
    """
    whole = splat(builder, builder.fptosi(whole, I32), WIDTH)
    low = [builder.mul(whole, constant(_SUMS, factor)) for factor in factors]
    return join(builder, low + [constant(_SUMS, 0)] * len(low))


def step(builder: Any, sums: Any, columns: list[Any], digits: Any) -> Any:
    """Sums plus columns of four rows times their high * 256 + low."""
    high, low = (splat(builder, load_from(builder, digits, I32, place), WIDTH) for place in (0, 4))
    old = members(builder, sums, 2 * len(columns))
    seconds, firsts = old[: len(columns)], old[len(columns) :]
    seconds = [dot_second(builder, t, each, low) for t, each in zip(seconds, columns)]
    if byte_dot():
        firsts = [dot_first(builder, t, each, high) for t, each in zip(firsts, columns)]
    else:  # both halves count alike, and registers are scarce
        seconds = [dot_first(builder, t, each, high) for t, each in zip(seconds, columns)]
    return join(builder, seconds + firsts)


def _tile(builder: Any, parts: Sequence[Any], count: int) -> Any:
    """Integers of so many vectors, from low and high digits of LANES / WIDTH parts of them."""
    totals = []
    for sums in parts[: LANES // WIDTH]:
        vectors = members(builder, sums, 2 * count)
        halves = zip(vectors[count:], vectors[:count])
        totals.append([builder.add(second, carry(builder, first)) for first, second in halves])
    return join(builder, [concatenate(builder, each) for each in zip(*totals)])


@define(_TILE_OF_BYTES, _OF_BYTES, _OF_BYTES)
def tile_of_bytes(builder: Any, left: Any, right: Any) -> Any:
    """The sums of 64 columns from those of the parts; `right` counts where there are two."""
    return _tile(builder, (left, right), 4)


@define(TILE_OF_NIBBLES, OF_NIBBLES, OF_NIBBLES)
def tile_of_nibbles(builder: Any, left: Any, right: Any) -> Any:
    """The sums of 128 columns from those of the parts; `right` counts where there are two."""
    return _tile(builder, (left, right), 8)


def low_and_high(builder: Any, sums: Any, scale: Any) -> list[Any]:
    """What sums of low nibbles, then of high ones, stand for."""
    vectors = members(builder, sums, 8)
    both, high = vectors[:4], vectors[4:]
    low = [builder.sub(a, b) for a, b in zip(both, high)]
    sixteenth = builder.fmul(scale, constant(FLOATS, 1 / 16))
    return scaled(builder, low, scale) + scaled(builder, high, sixteenth)


@define(_OF_BYTES, types.float32)
def start_int8(builder: Any, whole: Any) -> Any:
    """Sums of 64 columns before any row, less 128 times the total of the activations to come."""
    return start_sums(builder, whole, [-128] * 4)


@define(OF_NIBBLES, types.float32)
def start_int4(builder: Any, whole: Any) -> Any:
    """Sums of 128 columns, less 8 times the total; high nibbles count 16 times, and twice."""
    return start_sums(builder, whole, [-8 * 17] * 4 + [-8 * 16] * 4)


@define(_OF_BYTES, _OF_BYTES, *_FOUR_ROWS, types.int64)
def add_int8(builder: Any, sums: Any, a: Any, b: Any, c: Any, d: Any, digits: Any) -> Any:
    """Add 64 columns of four rows, each plus 128, times the four activations at `digits`."""
    flip = constant(_SUMS, -0x7F7F7F80)
    columns = [
        builder.xor(each, flip)
        for each in columns_of_four(builder, _load_rows(builder, a, b, c, d))
    ]
    return step(builder, sums, columns, digits)


@define(OF_NIBBLES, OF_NIBBLES, *_FOUR_ROWS, types.int64)
def add_int4(builder: Any, sums: Any, a: Any, b: Any, c: Any, d: Any, digits: Any) -> Any:
    """Add 128 columns of four rows (64 bytes each) times the four activations at `digits`.

    Columns of whole bytes, and of their high nibbles where they stand: what is left of the
    difference are the low ones, without a mask and two shifts for each vector.
    """
    packed = columns_of_four(builder, _load_rows(builder, a, b, c, d))
    mask = constant(_SUMS, -0x0F0F0F10)  # 0xF0 in every byte
    high = [builder.and_(each, mask) for each in packed]
    return step(builder, sums, packed + high, digits)


@define(types.none, _TILE_OF_BYTES, types.int64, types.int64, vector)
def put_int8(builder: Any, sums: Any, scales: Any, place: Any, scale: Any) -> Any:
    """Add 64 sums times `scale` times their own float16 scales to the float32 at place."""
    values = scaled(builder, members(builder, sums, 4), scale)
    add_to(builder, place, [(values, _scales8(builder, scales))])


@define(types.none, TILE_OF_NIBBLES, types.int64, types.int64, vector)
def put_int4(builder: Any, sums: Any, scales: Any, place: Any, scale: Any) -> Any:
    """Add 128 sums times `scale` times their own float16 scales to the float32 at place."""
    add_to(builder, place, [(low_and_high(builder, sums, scale), _scales16(builder, scales))])


@define(types.none, TILE_OF_NIBBLES, types.int64, types.int64, types.int64, vector, vector)
def put_int4_minima(
    builder: Any, sums: Any, scales: Any, minima: Any, place: Any, scale: Any, total: Any
) -> Any:
    """`put_int4`, and minima (float16) times the total of the activations."""
    values = low_and_high(builder, sums, scale)
    products = [(values, _scales16(builder, scales)), (total, _scales16(builder, minima))]
    add_to(builder, place, products)


@define(types.none, types.int64, vector, vector)
def store_fours(builder: Any, address: Any, first: Any, second: Any) -> Any:
    """Write thirty-two whole numbers of at most 127 * 256: four high digits, four low, repeated."""
    halves = [halves_of(builder, builder.fptosi(each, INTEGERS)) for each in (first, second)]
    fours = [
        builder.bitcast(concatenate(builder, digits), ir.VectorType(I32, 8))
        for digits in zip(*halves)
    ]
    lanes = [lane for i in range(8) for lane in (i, i + 8)]
    store_to(builder, shuffle(builder, fours[0], fours[1], lanes), address)
