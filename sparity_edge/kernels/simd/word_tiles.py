"""Tiles of 16-bit integers: the inner loop of products for many tokens, 32 inputs at a time.

A step multiplies 32 outputs by six tokens with `vpdpwssd` and applies a scale to each sum. Cores of
AMD multiply in two places and add in four; Winograd's inner product (1968) makes use of that: from
(a + d)(b + c) = ac + bd + ab + cd one multiplication gets two products of activations a, b with
weights c, d, and what is too much are sums over activations or weights alone, known beforehand.
Integers make it exact. 20 inputs of 32 go that way, 12 as they are: 1.47 times as fast (Zen 5).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from sparity_edge.kernels.simd.cpu import has_spare_adders, word_dot
from sparity_edge.kernels.simd.float_tiles import (
    ROW,
    TOKENS,
    UNIT,
    WIDTH,
    _constant,
    _load,
    _offset,
    _pick,
    _splat,
    _store,
)
from sparity_edge.kernels.simd.intrinsics import F32, I16, I32, I64, define, load_unaligned
from sparity_edge.kernels.simd.products import dot_words
from sparity_edge.kernels.simd.vectors import Tile, call_llvm, vector

# Of the eight fours of inputs of a unit, those multiplied crosswise: adders and multipliers have as
# much to do then. Products alone reach 708, 777 and 755 GFLOP/s a core of Zen 5 with four, five and
# six of them, 529 with none; whole units 461 with none and 586 to 652 with different fives.
CROSSED = (1, 2, 4, 5, 7) if has_spare_adders() else ()
FOURS = UNIT // 4
# A unit of activations: 16 pairs of inputs of six tokens, their scales, their sums (unscaled), and
# what crosswise products have too much: in all, in the first half and in the second.
X_SCALES, X_SUMS, X_CROSS = (4 * TOKENS * row for row in (16, 17, 18))
X_HALVES, X_UNIT = (4 * TOKENS * 19, 4 * TOKENS * 20), 512
# A unit of weights: 16 pairs of inputs of a panel, its scales, its minima, and what crosswise
# products have too much: in all, or in the first half and in the second.
W_SCALES, W_MINIMA, W_UNIT = 16 * ROW, 17 * ROW, 20 * ROW
W_CROSS = (18 * ROW, 19 * ROW)

_FLOATS, _WORDS = ir.VectorType(F32, 16), ir.VectorType(I32, 16)
_SHORTS = ir.VectorType(I16, 32)


def has_word_dot() -> bool:
    """Whether products of 16-bit integers beat those of float32."""
    return word_dot() != ""


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


def _add_words(builder: Any, left: Any, right: Any) -> Any:
    left, right = (builder.bitcast(each, _SHORTS) for each in (left, right))
    return builder.bitcast(builder.add(left, right), _WORDS)


def _begin(builder: Any, w: Any, x: Any, w_cross: int, x_cross: int) -> list[Any]:
    """Sums to begin with: less than nothing by what will be too much."""
    weights = [_load(builder, w, w_cross + 64 * i, _WORDS) for i in range(WIDTH)]
    tokens = [_splat(builder, _load(builder, x, x_cross + 4 * j, I32)) for j in range(TOKENS)]
    return [builder.add(w_part, x_part) for w_part in weights for x_part in tokens]


def _add_four(builder: Any, totals: list[Any], w: Any, x: Any, four: int) -> None:
    """Add the products of four inputs (two pairs) to integers."""
    w, x = _offset(builder, w, 2 * ROW * four), _offset(builder, x, 8 * TOKENS * four)
    first, second = (
        [_load(builder, w, ROW * k + 64 * i, _WORDS) for i in range(WIDTH)] for k in (0, 1)
    )
    for j in range(TOKENS):
        a, b = (_splat(builder, _load(builder, x, 4 * (TOKENS * k + j), I32)) for k in (0, 1))
        for i in range(WIDTH):
            index = i * TOKENS + j
            if four in CROSSED:
                left, right = _add_words(builder, a, second[i]), _add_words(builder, b, first[i])
                totals[index] = dot_words(builder, totals[index], left, right)
            else:
                totals[index] = dot_words(builder, totals[index], first[i], a)
                totals[index] = dot_words(builder, totals[index], second[i], b)


def _add_up(builder: Any, w: Any, x: Any, pairs: int) -> list[Any]:
    """Sums of products of so many pairs of inputs.

    A loop: unrolled, LLVM keeps what it has spread over all lanes for the next vector of weights,
    and runs out of registers where there are 16 (125 instead of 160 GFLOP/s with AVX2).
    """
    places = [cgutils.alloca_once(builder, _WORDS) for _ in range(WIDTH * TOKENS)]
    for place in places:
        builder.store(_constant(_WORDS, 0), place)
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
    # Of the inputs that are summed at a time: where their scales stand, and what is too much.
    parts = [(W_SCALES, W_CROSS[0], X_CROSS)]
    if halves:
        parts = list(zip((W_SCALES, W_MINIMA), W_CROSS, X_HALVES))
    count = FOURS // len(parts)

    @define(tile, tile, types.int64, types.int64)
    def step(builder: Any, sums: Any, w: Any, x: Any) -> Any:
        """Add a unit of scaled weights at w times a unit of integers at x."""
        for part, (scales, w_cross, x_cross) in enumerate(parts):
            if CROSSED:
                totals = _begin(builder, w, x, w_cross, x_cross)
                for four in range(count * part, count * (part + 1)):
                    _add_four(builder, totals, w, x, four)
            else:
                done = 2 * count * part
                start = _offset(builder, w, ROW * done), _offset(builder, x, 4 * TOKENS * done)
                totals = _add_up(builder, *start, 2 * count)
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


def _cross_weights(halves: bool) -> Any:
    parts = [range(FOURS // 2), range(FOURS // 2, FOURS)] if halves else [range(FOURS)]

    @define(types.none, types.int64)
    def cross(builder: Any, w: Any) -> Any:
        """Write what crosswise products of a unit of weights have too much, negated."""
        for place, fours in zip(W_CROSS, parts):
            for i in range(2):
                much = _constant(_WORDS, 0)
                for four in (each for each in fours if each in CROSSED):
                    pairs = [
                        _load(builder, w, ROW * (2 * four + k) + 64 * i, _WORDS) for k in (0, 1)
                    ]
                    much = dot_words(builder, much, *pairs)
                _store(builder, builder.neg(much), _offset(builder, w, place + 64 * i))

    return cross


cross_weights, cross_weights_by_halves = _cross_weights(False), _cross_weights(True)


@define(vector, types.int64, vector, vector)
def store_words(builder: Any, address: Any, first: Any, second: Any) -> Any:
    """Round 32 numbers to 16-bit integers, pair by pair, to the place of one of six tokens.

    Returns:
        The sums of rounded numbers of both vectors.
    """
    whole = [call_llvm(builder, "rint", each) for each in (first, second)]
    integers = [builder.fptosi(each, _WORDS) for each in whole]
    left, right = (builder.trunc(each, ir.VectorType(I16, 16)) for each in integers)
    pairs = builder.bitcast(_pick(builder, left, right, list(range(32))), _WORDS)
    for k in range(16):
        value = builder.extract_element(pairs, I32(k))
        _store(builder, value, _offset(builder, address, 4 * TOKENS * k))
    if CROSSED:
        _store_cross(builder, address, pairs)
    return builder.fadd(*whole)


def _store_cross(builder: Any, address: Any, pairs: Any) -> None:
    """Write what crosswise products of a unit of activations have too much, negated."""
    even, odd = (
        _pick(builder, pairs, pairs, [2 * four % 16 + k for four in range(16)]) for k in (0, 1)
    )
    much = dot_words(builder, _constant(_WORDS, 0), even, odd)
    parts = []
    for half in (0, 1):
        sums = I32(0)
        for four in (each for each in CROSSED if each * 2 // FOURS == half):
            sums = builder.sub(sums, builder.extract_element(much, I32(four)))
        _store(builder, sums, _offset(builder, address, X_HALVES[half]))
        parts.append(sums)
    _store(builder, builder.add(*parts), _offset(builder, address, X_CROSS))
