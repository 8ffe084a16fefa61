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
from numba.core import cgutils, types

from sparity_edge.kernels.cpu import features, word_dot
from sparity_edge.kernels.intrinsics import F32, I8, I16, I32, I64, at, define, load_unaligned
from sparity_edge.kernels.products import dot_words
from sparity_edge.kernels.simd import Tile, call_llvm, vector

TOKENS = 6  # of a tile
PANEL = 32  # outputs of a panel of weights
# Vectors of weights a step takes: 12 of 32 registers are sums, or of 16 with AVX2.
WIDTH = 2 if "avx512f" in features() else 1
ROW = 4 * PANEL  # bytes of one input (or pair of inputs) in a panel
# A unit of activations: 16 pairs of inputs of six tokens, their scales, their sums (unscaled).
UNIT = 32  # inputs
X_SCALES, X_SUMS, X_UNIT = 64 * TOKENS, 68 * TOKENS, 448
# A unit of weights: 16 pairs of inputs of a panel, its scales, its minima.
W_SCALES, W_MINIMA, W_UNIT = 16 * ROW, 17 * ROW, 18 * ROW

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


@define(types.none, types.int64, Tile(WIDTH, TOKENS), types.int64)
def add_scaled_sums(builder: Any, address: Any, sums: Any, x: Any) -> Any:
    """Add to sums in memory, side by side, those of integers times the scales of unit x."""
    for j in range(TOKENS):
        scale = _splat(builder, _load(builder, x, X_SCALES + 4 * j, F32))
        for i in range(WIDTH):
            place = _offset(builder, address, ROW * j + 64 * i)
            value = builder.extract_value(sums, i * TOKENS + j)
            old = load_unaligned(builder, place, _FLOATS)
            _store(builder, call_llvm(builder, "fmuladd", value, scale, old), place)


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


def has_word_dot() -> bool:
    """Whether products of 16-bit integers beat those of float32."""
    return word_dot() != ""


def _add_up(builder: Any, w: Any, x: Any, pairs: int) -> list[Any]:
    """Sums of products of so many pairs of inputs.

    A loop: unrolled, LLVM keeps what it has spread over all lanes for the next vector of weights,
    and runs out of registers where there are 16 (125 GFLOP/s instead of ...).
    """
    none = _constant(_WORDS, 0)
    places = [cgutils.alloca_once(builder, _WORDS) for _ in range(WIDTH * TOKENS)]
    for place in places:
        builder.store(none, place)
    with cgutils.for_range(builder, I64(pairs)) as loop:
        w = builder.add(w, builder.mul(loop.index, I64(ROW)))
        x = builder.add(x, builder.mul(loop.index, I64(4 * TOKENS)))
        weights = [_load(builder, w, 64 * i, _WORDS) for i in range(WIDTH)]
        for j in range(TOKENS):
            pair = _splat(builder, _load(builder, x, 4 * j, I32))
            for i in range(WIDTH):
                place = places[i * TOKENS + j]
                builder.store(dot_words(builder, builder.load(place), weights[i], pair), place)
    return [builder.load(place) for place in places]


def _word_step(minimum: bool = False, halves: bool = False) -> Any:
    tile = Tile(WIDTH, TOKENS)
    # Where the scales of the inputs stand that are summed at a time.
    parts = (W_SCALES, W_MINIMA) if halves else (W_SCALES,)
    pairs = UNIT // 2 // len(parts)

    @define(tile, tile, types.int64, types.int64)
    def step(builder: Any, sums: Any, w: Any, x: Any) -> Any:
        """Add a unit of scaled weights at w times a unit of integers at x."""
        for part, scales in enumerate(parts):
            done = pairs * part
            start = _offset(builder, w, ROW * done), _offset(builder, x, 4 * TOKENS * done)
            totals = _add_up(builder, *start, pairs)
            sums = _add_unit(builder, sums, totals, _offset(builder, w, scales))
        return _add_minima(builder, sums, w, x) if minimum else sums

    return step


def _add_unit(builder: Any, sums: Any, totals: list[Any], scales: Any) -> Any:
    for j in range(TOKENS):
        for i in range(WIDTH):
            index = i * TOKENS + j
            value = builder.sitofp(totals[index], _FLOATS)
            scale = _load(builder, scales, 64 * i, _FLOATS)
            old = builder.extract_value(sums, index)
            new = call_llvm(builder, "fmuladd", value, scale, old)
            sums = builder.insert_value(sums, new, index)
    return sums


def _add_minima(builder: Any, sums: Any, w: Any, x: Any) -> Any:
    for j in range(TOKENS):
        x_sum = _splat(builder, _load(builder, x, X_SUMS + 4 * j, F32))
        for i in range(WIDTH):
            index = i * TOKENS + j
            least = _load(builder, w, W_MINIMA + 64 * i, _FLOATS)
            old = builder.extract_value(sums, index)
            new = call_llvm(builder, "fmuladd", least, x_sum, old)
            sums = builder.insert_value(sums, new, index)
    return sums


step_words, step_words_with_minimum = _word_step(), _word_step(minimum=True)
# With scales for 16 inputs: those of the second half of a unit stand in place of minima.
step_words_by_halves = _word_step(halves=True)


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


@define(vector, types.int64, vector, vector)
def store_words(builder: Any, address: Any, first: Any, second: Any) -> Any:
    """Round 32 numbers to 16-bit integers, pair by pair, to the place of one of six tokens.

    Returns:
        The sums of rounded numbers of both vectors.
    """
    whole = [call_llvm(builder, "rint", each) for each in (first, second)]
    integers = [builder.fptosi(each, _WORDS) for each in whole]
    left, right = (builder.trunc(each, ir.VectorType(I16, 16)) for each in integers)
    pairs = _pairs(builder, _pick(builder, left, right, list(range(32))))
    for k in range(16):
        value = builder.extract_element(pairs, I32(k))
        _store(builder, value, _offset(builder, address, 4 * TOKENS * k))
    return builder.fadd(*whole)
