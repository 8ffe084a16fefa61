"""Rows of 8-bit and 4-bit weights added up in integers, four rows at a time.

Bytes of four rows are interleaved, so that a lane holds one column of all four, and one instruction
(`vpdpbusd`, where the CPU has it) adds four products; activations are two signed bytes, high * 256
+ low, as in `bytewise`. Sums stay in order of 128-bit quarters until they are stored. Integers: the
same bits on every CPU. (16-bit weights and `vpdpwssd` need 28 vector instructions where this needs
20, and 52 against 36 for int4.)
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import models, register_model

from sparity_edge.kernels.cpu import has_byte_dot
from sparity_edge.kernels.intrinsics import F32, I8, I16, I32, I64, at, define, load_unaligned
from sparity_edge.kernels.simd import call_llvm, vector

_INTEGERS = ir.VectorType(I32, 16)
_FLOATS = ir.VectorType(F32, 16)
_WORDS = ir.VectorType(I16, 32)
_BYTES = ir.VectorType(I8, 64)


class Sums(types.Type):
    """Several vectors of sixteen int32."""

    def __init__(self, vectors: int) -> None:
        self.vectors = vectors
        super().__init__(name=f"sums{vectors}")


@register_model(Sums)
class _SumsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, ir.LiteralStructType([_INTEGERS] * fe_type.vectors))


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


def _dot(builder: Any, total: Any, unsigned: Any, signed: Any) -> Any:
    """total[i] plus the four products of bytes 4 i to 4 i + 3."""
    if has_byte_dot():
        signature = ir.FunctionType(_INTEGERS, [_INTEGERS] * 3)
        function = cgutils.get_or_insert_function(
            builder.module, signature, "llvm.x86.avx512.vpdpbusd.512"
        )
        return builder.call(function, [total, unsigned, signed])
    # Sums of two 16-bit products are one instruction (`vpmaddwd`), so bytes go by turns.
    left, right = (builder.bitcast(each, _WORDS) for each in (unsigned, signed))
    eight = _constant(_WORDS, 8)
    low = builder.and_(left, _constant(_WORDS, 255))
    total = _add_pairs(builder, total, low, builder.ashr(builder.shl(right, eight), eight))
    return _add_pairs(builder, total, builder.lshr(left, eight), builder.ashr(right, eight))


def _add_pairs(builder: Any, total: Any, words: Any, factors: Any) -> Any:
    """total[i] + words[2 i] * factors[2 i] + words[2 i + 1] * factors[2 i + 1]."""
    wide = ir.VectorType(I32, 32)
    products = builder.mul(builder.sext(words, wide), builder.sext(factors, wide))
    even = _pick(builder, products, products, list(range(0, 32, 2)))
    odd = _pick(builder, products, products, list(range(1, 32, 2)))
    return builder.add(total, builder.add(even, odd))


def _digits_at(builder: Any, address: Any) -> Any:
    """Four digits, one for each row, in every lane."""
    digits = load_unaligned(builder, address, I32)
    alone = builder.insert_element(ir.Constant(_INTEGERS, ir.Undefined), digits, I32(0))
    return _pick(builder, alone, alone, [0] * 16)


def _add_products(builder: Any, sums: Any, columns: list[Any], digits: Any) -> Any:
    """Add columns times the high digits to the first half of the sums, low digits to the second."""
    for half, place in enumerate((digits, builder.add(digits, I64(4)))):
        factors = _digits_at(builder, place)
        for index, lanes in enumerate(columns, half * len(columns)):
            total = _dot(builder, builder.extract_value(sums, index), lanes, factors)
            sums = builder.insert_value(sums, total, index)
    return sums


def _joined(builder: Any, sums: Any, count: int) -> list[Any]:
    """high * 256 + low of each of `count` vectors."""
    high, low = (
        [builder.extract_value(sums, start + index) for index in range(count)]
        for start in (0, count)
    )
    return [builder.add(builder.shl(a, _constant(_INTEGERS, 8)), b) for a, b in zip(high, low)]


def _natural(builder: Any, sums: list[Any]) -> list[Any]:
    """From order of quarters to that of the bytes: quarter q of vector k becomes k of q."""
    result = []
    for quarter in range(0, 16, 4):
        lanes = [quarter + i for i in range(4)] + [16 + quarter + i for i in range(4)]
        low = _pick(builder, sums[0], sums[1], lanes)
        high = _pick(builder, sums[2], sums[3], lanes)
        result.append(_pick(builder, low, high, list(range(16))))
    return result


def _store_all(builder: Any, address: Any, vectors: list[Any]) -> None:
    for index, each in enumerate(vectors):
        place = at(builder, builder.add(address, I64(64 * index)), _FLOATS)
        builder.store(builder.sitofp(each, _FLOATS), place, align=1)


def _zero(kind: Sums) -> Any:
    @define(kind)
    def zero(_builder: Any) -> Any:
        """All sums zero."""
        block = ir.LiteralStructType([_INTEGERS] * kind.vectors)
        return ir.Constant(block, [_constant(_INTEGERS, 0)] * kind.vectors)

    return zero


sums8, sums16 = Sums(8), Sums(16)
no_sums8, no_sums16 = _zero(sums8), _zero(sums16)
_FOUR_ROWS = (types.int64,) * 4


@define(sums8, sums8, *_FOUR_ROWS, types.int64)
def add_four_int8(builder: Any, sums: Any, a: Any, b: Any, c: Any, d: Any, digits: Any) -> Any:
    """Add 64 columns of four rows, each plus 128, times the four activations at `digits`."""
    flip = _constant(_INTEGERS, -0x7F7F7F80)
    columns = [builder.xor(each, flip) for each in _columns_of_four(builder, (a, b, c, d))]
    return _add_products(builder, sums, columns, digits)


@define(sums16, sums16, *_FOUR_ROWS, types.int64)
def add_four_int4(builder: Any, sums: Any, a: Any, b: Any, c: Any, d: Any, digits: Any) -> Any:
    """Add 128 columns of four rows (64 bytes each) times the four activations at `digits`."""
    nibble = _constant(_INTEGERS, 0x0F0F0F0F)
    packed = _columns_of_four(builder, (a, b, c, d))
    low = [builder.and_(each, nibble) for each in packed]
    four = _constant(_INTEGERS, 4)
    high = [builder.and_(builder.lshr(each, four), nibble) for each in packed]
    return _add_products(builder, sums, low + high, digits)


@define(types.none, types.int64, sums8)
def store_sums8(builder: Any, address: Any, sums: Any) -> Any:
    """Write 64 sums as float32, columns in order."""
    _store_all(builder, address, _natural(builder, _joined(builder, sums, 4)))


@define(types.none, types.int64, sums16)
def store_sums16(builder: Any, address: Any, sums: Any) -> Any:
    """Write 128 sums as float32, columns in order: 32 columns share 16 bytes, low nibbles first."""
    vectors = _joined(builder, sums, 8)
    low, high = _natural(builder, vectors[:4]), _natural(builder, vectors[4:])
    _store_all(builder, address, [each for pair in zip(low, high) for each in pair])


@define(vector, vector)
def rounded(builder: Any, value: Any) -> Any:
    """Each lane rounded to the nearest whole number, halves to even."""
    return call_llvm(builder, "rint", value)


@define(types.none, types.int64, vector, vector)
def store_fours(builder: Any, address: Any, first: Any, second: Any) -> Any:
    """Write thirty-two whole numbers of at most 127 * 256: four high digits, four low, by turns."""
    small = ir.VectorType(I8, 16)
    whole = [builder.fptosi(each, _INTEGERS) for each in (first, second)]
    places = _constant(_INTEGERS, 24)
    low = [builder.ashr(builder.shl(each, places), places) for each in whole]
    eight = _constant(_INTEGERS, 8)
    high = [builder.ashr(builder.sub(each, part), eight) for each, part in zip(whole, low)]
    fours = []
    for left, right in (high, low):
        digits = [builder.trunc(each, small) for each in (left, right)]
        both = _pick(builder, digits[0], digits[1], list(range(32)))
        fours.append(builder.bitcast(both, ir.VectorType(I32, 8)))
    lanes = [lane for i in range(8) for lane in (i, i + 8)]
    by_turns = _pick(builder, fours[0], fours[1], lanes)
    builder.store(by_turns, at(builder, address, _INTEGERS), align=1)
