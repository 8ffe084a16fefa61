"""Rows of 8-bit and 4-bit weights added up in integers, four rows at a time.

Bytes of four rows are interleaved, so that a lane holds one column of all four, and one instruction
(`vpdpbusd`, where the CPU has it) adds four products; activations are two signed bytes, high * 256
+ low, as in `bytewise`. Integers: the same bits on every CPU. (16-bit weights and `vpdpwssd` need
28 vector instructions where this needs 20, and 52 against 34 for int4.)

Sums come in order of 128-bit quarters and stay so until all groups are added (`natural8`,
`natural16`): turning the scales of a group into that order is half the work of turning its sums.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import models, register_model

from sparity_edge.kernels.simd.cpu import features
from sparity_edge.kernels.simd.intrinsics import F32, I8, I16, I32, I64, at, define, load_unaligned
from sparity_edge.kernels.simd.products import carry, dot_first, dot_second, halves_of
from sparity_edge.kernels.simd.vectors import _half_to_float, call_llvm, vector

_INTEGERS = ir.VectorType(I32, 16)
_FLOATS = ir.VectorType(F32, 16)
_WORDS = ir.VectorType(I16, 32)
_BYTES = ir.VectorType(I8, 64)
_QUARTERS = ir.VectorType(I64, 8)  # of 16 float16: four numbers each


def _pick(builder: Any, left: Any, right: Any, lanes: list[int]) -> Any:
    mask = ir.Constant(ir.VectorType(I32, len(lanes)), lanes)
    return builder.shuffle_vector(left, right, mask)


def _interleave(builder: Any, left: Any, right: Any) -> tuple[Any, Any]:
    """Elements of two vectors by turns, of the lower and of the upper half of each 16 bytes."""
    count = left.type.count
    quarter = count // 4
    halves = []
    for start in (0, quarter // 2):
        lanes = [
            lane
            for base in range(start, count, quarter)
            for i in range(base, base + quarter // 2)
            for lane in (i, i + count)
        ]
        halves.append(_pick(builder, left, right, lanes))
    return halves[0], halves[1]


def _columns_of_four(builder: Any, addresses: Any) -> list[Any]:
    """Four vectors whose 32-bit lanes hold a byte of each of the four rows."""
    a, b, c, d = (load_unaligned(builder, address, _BYTES) for address in addresses)
    result: list[Any] = []
    for left, right in zip(_interleave(builder, a, b), _interleave(builder, c, d)):
        left, right = (builder.bitcast(each, _WORDS) for each in (left, right))
        result += _interleave(builder, left, right)
    return [builder.bitcast(each, _INTEGERS) for each in result]


def _constant(kind: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


def _digits_at(builder: Any, address: Any) -> Any:
    """Four digits, one for each row, in every lane."""
    digits = load_unaligned(builder, address, I32)
    alone = builder.insert_element(ir.Constant(_INTEGERS, ir.Undefined), digits, I32(0))
    return _pick(builder, alone, alone, [0] * 16)


def _natural(builder: Any, sums: list[Any]) -> list[Any]:
    """From order of quarters to that of the bytes: quarter q of vector k becomes k of q."""
    result = []
    for quarter in range(0, 16, 4):
        lanes = [quarter + i for i in range(4)] + [16 + quarter + i for i in range(4)]
        low = _pick(builder, sums[0], sums[1], lanes)
        high = _pick(builder, sums[2], sums[3], lanes)
        result.append(_pick(builder, low, high, list(range(16))))
    return result


# --- scales -----------------------------------------------------------------------------------


def _halves_of(builder: Any, pairs: list[Any]) -> list[Any]:
    """Sixteen float32 from each half of vectors of float16."""
    result = []
    for pair in pairs:
        words = builder.bitcast(pair, _WORDS)
        for start in (0, 16):
            bits = _pick(builder, words, words, list(range(start, start + 16)))
            if "f16c" in features():
                halves = builder.bitcast(bits, ir.VectorType(ir.HalfType(), 16))
                result.append(builder.fpext(halves, _FLOATS))
            else:
                wide = builder.zext(bits, _INTEGERS)
                result.append(_half_to_float(builder, wide))
    return result


def _scales8(builder: Any, address: Any) -> list[Any]:
    """64 float16 as four vectors in the order of `_columns_of_four`."""
    a, b = (load_unaligned(builder, builder.add(address, I64(64 * i)), _QUARTERS) for i in range(2))
    orders = ([0, 4, 8, 12, 1, 5, 9, 13], [2, 6, 10, 14, 3, 7, 11, 15])
    return _halves_of(builder, [_pick(builder, a, b, order) for order in orders])


def _scales16(builder: Any, address: Any) -> list[Any]:
    """128 float16 as eight vectors: those of low nibbles, then those of high ones."""
    a, b, c, d = (
        load_unaligned(builder, builder.add(address, I64(64 * i)), _QUARTERS) for i in range(4)
    )
    pairs = []
    for start in (0, 4):
        order = [lane for i in range(start, start + 4) for lane in (i, i + 8)]
        left, right = _pick(builder, a, b, order), _pick(builder, c, d, order)
        for lanes in ([0, 1, 8, 9, 2, 3, 10, 11], [4, 5, 12, 13, 6, 7, 14, 15]):
            pairs.append(_pick(builder, left, right, lanes))
    return _halves_of(builder, pairs)


def _add_to(builder: Any, address: Any, products: list[tuple[Any, list[Any]]]) -> None:
    """Add factor * vector to the vectors at an address, for each of the products."""
    for index in range(len(products[0][1])):
        place = at(builder, builder.add(address, I64(64 * index)), _FLOATS)
        value = builder.load(place, align=1)
        for factor, vectors in products:
            each = factor[index] if isinstance(factor, list) else factor
            value = call_llvm(builder, "fmuladd", vectors[index], each, value)
        builder.store(value, place, align=1)


def _scaled(builder: Any, sums: list[Any], scale: Any) -> list[Any]:
    return [builder.fmul(builder.sitofp(each, _FLOATS), scale) for each in sums]


# --- the sums of a tile -----------------------------------------------------------------------


class Sums(types.Type):
    """Integers of the columns of 64 bytes: sums with low digits, then as many with high ones."""

    def __init__(self, vectors: int) -> None:
        self.vectors = vectors
        super().__init__(name=f"sums{vectors}")


@register_model(Sums)
class _SumsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, ir.LiteralStructType([_INTEGERS] * fe_type.vectors))


_OF_BYTES, _OF_NIBBLES = Sums(8), Sums(16)


def _join(builder: Any, vectors: list[Any]) -> Any:
    block = ir.Constant(ir.LiteralStructType([_INTEGERS] * len(vectors)), ir.Undefined)
    for index, each in enumerate(vectors):
        block = builder.insert_value(block, each, index)
    return block


def _start(builder: Any, whole: Any, factors: list[int]) -> Any:
    """Low sums that begin with whole * factor, high ones with zero.

    Offsets are integers, so that what cancels leaves nothing.
    """
    zero = _constant(_INTEGERS, 0)
    alone = builder.insert_element(
        ir.Constant(_INTEGERS, ir.Undefined), builder.fptosi(whole, I32), I32(0)
    )
    whole = _pick(builder, alone, alone, [0] * 16)
    low = [builder.mul(whole, _constant(_INTEGERS, factor)) for factor in factors]
    return _join(builder, low + [zero] * len(low))


def _step(builder: Any, sums: Any, columns: list[Any], digits: Any) -> Any:
    """Sums plus columns of four rows times their high * 256 + low."""
    high, low = (_digits_at(builder, builder.add(digits, I64(place))) for place in (0, 4))
    old = [builder.extract_value(sums, index) for index in range(2 * len(columns))]
    seconds, firsts = old[: len(columns)], old[len(columns) :]
    seconds = [dot_second(builder, t, each, low) for t, each in zip(seconds, columns)]
    firsts = [dot_first(builder, t, each, high) for t, each in zip(firsts, columns)]
    return _join(builder, seconds + firsts)


def _totals(builder: Any, sums: Any, count: int) -> list[Any]:
    vectors = [builder.extract_value(sums, index) for index in range(2 * count)]
    halves = zip(vectors[count:], vectors[:count])
    return [builder.add(second, carry(builder, first)) for first, second in halves]


def _low_and_high(builder: Any, sums: Any, scale: Any) -> list[Any]:
    """What sums of low nibbles, then of high ones, stand for."""
    totals = _totals(builder, sums, 8)
    both, high = totals[:4], totals[4:]
    low = [builder.sub(a, b) for a, b in zip(both, high)]
    sixteenth = builder.fmul(scale, ir.Constant(_FLOATS, [1 / 16] * 16))
    return _scaled(builder, low, scale) + _scaled(builder, high, sixteenth)


_FOUR_ROWS = (types.int64,) * 4


@define(_OF_BYTES, types.float32)
def start_int8(builder: Any, whole: Any) -> Any:
    """Sums of 64 columns before any row, less 128 times the total of the activations to come."""
    return _start(builder, whole, [-128] * 4)


@define(_OF_NIBBLES, types.float32)
def start_int4(builder: Any, whole: Any) -> Any:
    """Sums of 128 columns, less 8 times the total; high nibbles count 16 times, and twice."""
    return _start(builder, whole, [-8 * 17] * 4 + [-8 * 16] * 4)


@define(_OF_BYTES, _OF_BYTES, *_FOUR_ROWS, types.int64)
def add_int8(builder: Any, sums: Any, a: Any, b: Any, c: Any, d: Any, digits: Any) -> Any:
    """Add 64 columns of four rows, each plus 128, times the four activations at `digits`."""
    flip = _constant(_INTEGERS, -0x7F7F7F80)
    columns = [builder.xor(each, flip) for each in _columns_of_four(builder, (a, b, c, d))]
    return _step(builder, sums, columns, digits)


@define(_OF_NIBBLES, _OF_NIBBLES, *_FOUR_ROWS, types.int64)
def add_int4(builder: Any, sums: Any, a: Any, b: Any, c: Any, d: Any, digits: Any) -> Any:
    """Add 128 columns of four rows (64 bytes each) times the four activations at `digits`.

    Columns of whole bytes, and of their high nibbles where they stand: what is left of the
    difference are the low ones, without a mask and two shifts for each vector.
    """
    packed = _columns_of_four(builder, (a, b, c, d))
    high = [builder.and_(each, _constant(_INTEGERS, -0x0F0F0F10)) for each in packed]
    return _step(builder, sums, packed + high, digits)


@define(types.none, _OF_BYTES, types.int64, types.int64, vector)
def put_int8(builder: Any, sums: Any, scales: Any, place: Any, scale: Any) -> Any:
    """Add 64 sums times `scale` times their own scales to what is at place."""
    values = _scaled(builder, _totals(builder, sums, 4), scale)
    _add_to(builder, place, [(values, _scales8(builder, scales))])


@define(types.none, _OF_NIBBLES, types.int64, types.int64, vector)
def put_int4(builder: Any, sums: Any, scales: Any, place: Any, scale: Any) -> Any:
    """The same for 128 sums of int4 numbers."""
    _add_to(builder, place, [(_low_and_high(builder, sums, scale), _scales16(builder, scales))])


@define(types.none, _OF_NIBBLES, types.int64, types.int64, types.int64, vector, vector)
def put_int4_minima(
    builder: Any, sums: Any, scales: Any, minima: Any, place: Any, scale: Any, total: Any
) -> Any:
    """The same, and minima times the total of the activations."""
    values = _low_and_high(builder, sums, scale)
    products = [(values, _scales16(builder, scales)), (total, _scales16(builder, minima))]
    _add_to(builder, place, products)


def _in_order(builder: Any, address: Any, count: int) -> None:
    places = [at(builder, builder.add(address, I64(64 * index)), _FLOATS) for index in range(count)]
    vectors = [builder.load(place, align=1) for place in places]
    ordered = _natural(builder, vectors[:4])
    if count == 8:  # 32 columns share 16 bytes, low nibbles first
        high = _natural(builder, vectors[4:])
        ordered = [each for pair in zip(ordered, high) for each in pair]
    for place, each in zip(places, ordered):
        builder.store(each, place, align=1)


@define(types.none, types.int64)
def natural8(builder: Any, address: Any) -> Any:
    """Put 64 float32 into the order of columns."""
    _in_order(builder, address, 4)


@define(types.none, types.int64)
def natural16(builder: Any, address: Any) -> Any:
    """Put 128 float32 into the order of columns."""
    _in_order(builder, address, 8)


@define(vector, vector)
def rounded(builder: Any, value: Any) -> Any:
    """Each lane rounded to the nearest whole number, halves to even."""
    return call_llvm(builder, "rint", value)


@define(types.none, types.int64, vector, vector)
def store_fours(builder: Any, address: Any, first: Any, second: Any) -> Any:
    """Write thirty-two whole numbers of at most 127 * 256: four high digits, four low, by turns."""
    halves = [halves_of(builder, builder.fptosi(each, _INTEGERS)) for each in (first, second)]
    fours = []
    for digits in zip(*halves):
        both = _pick(builder, digits[0], digits[1], list(range(32)))
        fours.append(builder.bitcast(both, ir.VectorType(I32, 8)))
    lanes = [lane for i in range(8) for lane in (i, i + 8)]
    by_turns = _pick(builder, fours[0], fours[1], lanes)
    builder.store(by_turns, at(builder, address, _INTEGERS), align=1)
