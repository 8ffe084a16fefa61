"""Tiles of 16-bit integers: register blocks of products for many tokens, 32 inputs at a time.

    a unit of weights (W_UNIT bytes)                 a unit of activations (X_UNIT bytes)
    row 0      inputs 0, 1 of outputs 0 ... 31       inputs 0, 1 of tokens 0 ... 5
      ...
    row 15     inputs 30, 31                         inputs 30, 31
    row 16     scales, float32                       scales, float32
    row 17     minima, or second halves' scales      sums of the integers, float32
    row 18     excess, int32: of all or first half   excess, int32: of all inputs
    row 19     of the second half                    of the first half; row 20: of the second
    row 20     first halves' minima less the next
    row 21     second halves' minima

A step multiplies 32 outputs by six tokens, a pair of inputs to a lane (`vpdpwssd`), and applies a
scale to each sum. Cores of AMD multiply in two places and add in four; Winograd's inner product
(1968) makes use of that: from (a + d)(b + c) = ac + bd + ab + cd one multiplication gets two
products of activations a, b with weights c, d, and the excess is sums over activations or weights
alone, known beforehand. Integers make it exact. 20 inputs of 32 go that way, 12 as they are: 1.47
times as fast (AMD EPYC, Zen 5).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from sparity_edge.kernels.simd.cpu import has_spare_adders, word_dot
from sparity_edge.kernels.simd.float_tiles import ROW, TOKENS, WIDTH, tile
from sparity_edge.kernels.simd.integer_dots import dot_words
from sparity_edge.kernels.simd.ir import (
    F32,
    FLOATS,
    I16,
    I32,
    I64,
    INTEGERS,
    SHORTS,
    call_llvm,
    concatenate,
    constant,
    define,
    join,
    load_from,
    members,
    multiply_add,
    offset,
    shuffle,
    splat,
    store_to,
)
from sparity_edge.kernels.simd.vectors import vector

UNIT = 32  # inputs
FOURS = UNIT // 4
# Of the eight fours of inputs of a unit, those multiplied crosswise: adders and multipliers have as
# much to do then. Products alone reach 708, 777 and 755 GFLOP/s a core of an AMD EPYC (Zen 5) with
# four, five and six of them, 529 with none; whole units 461 with none and 586 to 652 with different
# fives (bench/kernels.py measures the kernel, `gemm_words`).
CROSSED = (1, 2, 4, 5, 7) if has_spare_adders() else ()
# Places in a unit of activations, in rows of six tokens.
X_SCALES, X_SUMS, X_CROSS = (4 * TOKENS * row for row in (16, 17, 18))
X_HALVES, X_UNIT = (4 * TOKENS * 19, 4 * TOKENS * 20), 512
# Places in a unit of weights, in rows of a panel.
W_SCALES, W_MINIMA, W_UNIT = 16 * ROW, 17 * ROW, 22 * ROW
W_CROSS, W_LEAST = (18 * ROW, 19 * ROW), (20 * ROW, 21 * ROW)


def has_word_dot() -> bool:
    """Whether products of 16-bit integers beat those of float32."""
    return word_dot() != ""


@define(types.none, types.int64, tile, types.int64)
def add_scaled_sums(builder: Any, address: Any, sums: Any, scales: Any) -> Any:
    """Add to sums in memory, side by side, those of integers times the scales of six tokens."""
    values = members(builder, sums, WIDTH * TOKENS)
    for j in range(TOKENS):
        scale = splat(builder, load_from(builder, scales, F32, 4 * j))
        for i in range(WIDTH):
            place = offset(builder, address, ROW * j + 64 * i)
            old = load_from(builder, place, FLOATS)
            store_to(builder, multiply_add(builder, values[i * TOKENS + j], scale, old), place)


def _add_shorts(builder: Any, left: Any, right: Any) -> Any:
    left, right = (builder.bitcast(each, SHORTS) for each in (left, right))
    return builder.bitcast(builder.add(left, right), INTEGERS)


def _begin(builder: Any, w: Any, x: Any, w_cross: int, x_cross: int) -> list[Any]:
    """Sums to begin with: less than nothing by what will be the excess."""
    weights = [load_from(builder, w, INTEGERS, w_cross + 64 * i) for i in range(WIDTH)]
    tokens = [splat(builder, load_from(builder, x, I32, x_cross + 4 * j)) for j in range(TOKENS)]
    return [builder.add(w_part, x_part) for w_part in weights for x_part in tokens]


def _add_four(builder: Any, totals: list[Any], w: Any, x: Any, four: int) -> None:
    """Add the products of four inputs (two pairs) to integers."""
    w, x = offset(builder, w, 2 * ROW * four), offset(builder, x, 8 * TOKENS * four)
    first, second = (
        [load_from(builder, w, INTEGERS, ROW * k + 64 * i) for i in range(WIDTH)] for k in (0, 1)
    )
    for j in range(TOKENS):
        a, b = (splat(builder, load_from(builder, x, I32, 4 * (TOKENS * k + j))) for k in (0, 1))
        for i in range(WIDTH):
            index = i * TOKENS + j
            if four in CROSSED:
                left, right = _add_shorts(builder, a, second[i]), _add_shorts(builder, b, first[i])
                totals[index] = dot_words(builder, totals[index], left, right)
            else:
                totals[index] = dot_words(builder, totals[index], first[i], a)
                totals[index] = dot_words(builder, totals[index], second[i], b)


def _add_up(builder: Any, w: Any, x: Any, pairs: int) -> list[Any]:
    """Sums of products of so many pairs of inputs.

    A loop: unrolled, LLVM keeps what it has spread over all lanes for the next vector of weights,
    and runs out of registers where there are 16 (125 instead of 160 GFLOP/s with AVX2).
    """
    places = [cgutils.alloca_once(builder, INTEGERS) for _ in range(WIDTH * TOKENS)]
    for place in places:
        builder.store(constant(INTEGERS, 0), place)
    with cgutils.for_range(builder, I64(pairs)) as loop:
        w = builder.add(w, builder.mul(loop.index, I64(ROW)))
        x = builder.add(x, builder.mul(loop.index, I64(4 * TOKENS)))
        weights = [load_from(builder, w, INTEGERS, 64 * i) for i in range(WIDTH)]
        for j in range(TOKENS):
            pair = splat(builder, load_from(builder, x, I32, 4 * j))
            for i in range(WIDTH):
                place = places[i * TOKENS + j]
                builder.store(dot_words(builder, builder.load(place), weights[i], pair), place)
    return [builder.load(place) for place in places]


def _word_step(minimum: bool = False, halves: bool = False) -> Any:
    # Of the inputs that are summed at a time: where their scales stand, and the excess.
    parts = [(W_SCALES, W_CROSS[0], X_CROSS)]
    if halves:
        parts = list(zip((W_SCALES, W_MINIMA), W_CROSS, X_HALVES))
    count = FOURS // len(parts)

    @define(tile, tile, types.int64, types.int64)
    def step(builder: Any, sums: Any, w: Any, x: Any) -> Any:
        """Add a unit of scaled weights at w times a unit of integers at x."""
        values = members(builder, sums, WIDTH * TOKENS)
        for part, (scales, w_cross, x_cross) in enumerate(parts):
            if CROSSED:
                totals = _begin(builder, w, x, w_cross, x_cross)
                for four in range(count * part, count * (part + 1)):
                    _add_four(builder, totals, w, x, four)
            else:
                done = 2 * count * part
                start = offset(builder, w, ROW * done), offset(builder, x, 4 * TOKENS * done)
                totals = _add_up(builder, *start, 2 * count)
            add_unit(builder, values, totals, offset(builder, w, scales))
        if minimum:
            least = offset(builder, w, W_LEAST[1] if halves else W_MINIMA)
            x_sums = [load_from(builder, x, F32, X_SUMS + 4 * j) for j in range(TOKENS)]
            add_minima(builder, values, least, x_sums)
        if minimum and halves:
            x_sums = _sums_of_first_halves(builder, x)
            add_minima(builder, values, offset(builder, w, W_LEAST[0]), x_sums)
        return join(builder, values)

    return step


def add_unit(builder: Any, values: list[Any], totals: list[Any], scales: Any) -> None:
    """Add scaled integers to the sums of a tile."""
    for j in range(TOKENS):
        for i in range(WIDTH):
            index = i * TOKENS + j
            number = builder.sitofp(totals[index], FLOATS)
            scale = load_from(builder, scales, FLOATS, 64 * i)
            values[index] = multiply_add(builder, number, scale, values[index])


def _sums_of_first_halves(builder: Any, x: Any) -> list[Any]:
    """Of each token the sum of the first sixteen inputs of a unit."""
    sums = constant(INTEGERS, 0)
    for pair in range(UNIT // 4):
        numbers = load_from(builder, x, INTEGERS, 4 * TOKENS * pair)  # more than TOKENS lanes
        sums = dot_words(builder, sums, numbers, constant(SHORTS, 1))
    floats = builder.sitofp(sums, FLOATS)
    return [builder.extract_element(floats, I32(j)) for j in range(TOKENS)]


def add_minima(builder: Any, values: list[Any], minima: Any, sums: list[Any]) -> None:
    """Add minima times sums of activations to the sums of a tile."""
    for j in range(TOKENS):
        x_sum = splat(builder, sums[j])
        for i in range(WIDTH):
            index = i * TOKENS + j
            least = load_from(builder, minima, FLOATS, 64 * i)
            values[index] = multiply_add(builder, least, x_sum, values[index])


step_words, step_words_with_minimum = _word_step(), _word_step(minimum=True)
# With scales for 16 inputs: those of the second half of a unit stand in place of minima.
step_words_by_halves = _word_step(halves=True)
step_words_by_halves_with_minima = _word_step(minimum=True, halves=True)


def _cross_weights(halves: bool) -> Any:
    parts = [range(FOURS // 2), range(FOURS // 2, FOURS)] if halves else [range(FOURS)]

    @define(types.none, types.int64)
    def cross(builder: Any, w: Any) -> Any:
        """Write the excess of crosswise products of a unit of weights, negated."""
        for place, fours in zip(W_CROSS, parts):
            for i in range(2):
                excess = constant(INTEGERS, 0)
                for four in (each for each in fours if each in CROSSED):
                    pairs = [
                        load_from(builder, w, INTEGERS, ROW * (2 * four + k) + 64 * i)
                        for k in (0, 1)
                    ]
                    excess = dot_words(builder, excess, *pairs)
                store_to(builder, builder.neg(excess), w, place + 64 * i)

    return cross


cross_weights, cross_weights_by_halves = _cross_weights(False), _cross_weights(True)


@define(vector, types.int64, vector, vector)
def store_words(builder: Any, address: Any, first: Any, second: Any) -> Any:
    """Round 32 numbers to 16-bit integers, pair by pair, to the place of one of six tokens.

    Returns:
        The sums of rounded numbers of both vectors.
    """
    whole = [call_llvm(builder, "rint", each) for each in (first, second)]
    integers = [builder.fptosi(each, INTEGERS) for each in whole]
    shorts = [builder.trunc(each, ir.VectorType(I16, 16)) for each in integers]
    pairs = builder.bitcast(concatenate(builder, shorts), INTEGERS)
    for k in range(16):
        store_to(builder, builder.extract_element(pairs, I32(k)), address, 4 * TOKENS * k)
    if CROSSED:
        _store_cross(builder, address, pairs)
    return builder.fadd(*whole)


def _store_cross(builder: Any, address: Any, pairs: Any) -> None:
    """Write the excess of crosswise products of a unit of activations, negated."""
    even, odd = (
        shuffle(builder, pairs, pairs, [2 * four % 16 + k for four in range(16)]) for k in (0, 1)
    )
    excess = dot_words(builder, constant(INTEGERS, 0), even, odd)
    parts = []
    for half in (0, 1):
        sums = I32(0)
        for four in (each for each in CROSSED if each * 2 // FOURS == half):
            sums = builder.sub(sums, builder.extract_element(excess, I32(four)))
        store_to(builder, sums, address, X_HALVES[half])
        parts.append(sums)
    store_to(builder, builder.add(*parts), address, X_CROSS)
