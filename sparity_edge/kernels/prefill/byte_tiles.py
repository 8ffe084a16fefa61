"""Tiles of bytes: register blocks of products for many tokens on CPUs with AVX2 and no more.

    a unit of weights (W_UNIT bytes)                 a unit of activations (B_UNIT bytes)
    row 0      inputs 0, 2, 1, 3 of outputs 0-31     inputs 0, 2, 1, 3 of tokens 0 ... 5
      ...
    row 7      inputs 28, 30, 29, 31                 inputs 28, 30, 29, 31
    row 8, 9                                         factors of both halves, each twice, int16
    row 10                                           scales, float32
    row 11                                           sums of integers times factors, float32
    row 12, 13                                       less the sums of inputs 0, 2, 4 ... and
                                                     1, 3, 5 ... of both halves, int16
    row 16-18  as in `int16_tiles`

Weights are unsigned, of four to six bits; activations are signed bytes, whose sixteen share a
factor, a whole number: x = scale * factor * byte. `vpmaddubsw` multiplies bytes and adds them by
twos, and the sums of sixteen inputs fit 16 bits; their factor and the last addition are one
instruction. So 32 inputs of 16 outputs and a token take 42 instructions that compute, where pairs
of 16-bit integers take 68. Signed weights are stored with `zero` added; the excess is
taken away as 16-bit integers, which may wrap around before.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from sparity_edge.kernels.simd.float_tiles import ROW, TOKENS, WIDTH, tile
from sparity_edge.kernels.simd.int16_tiles import (
    UNIT,
    W_MINIMA,
    W_SCALES,
    add_minima,
    add_unit,
)
from sparity_edge.kernels.simd.ir import (
    F32,
    I8,
    I16,
    I32,
    INTEGERS,
    SHORTS,
    concatenate,
    constant,
    define,
    join,
    load_from,
    members,
    offset,
    shuffle,
    splat,
    store_to,
)
from sparity_edge.kernels.simd.vectors import vector

HALF = UNIT // 2  # inputs that share a factor
MOST = 127  # of a byte
MOST_FACTOR = 4096  # sums of a unit stay below 2**31, and those with factors are exact as float32
# Places in a unit of activations, in rows of six tokens.
_STEP = 4 * TOKENS
_FACTORS, B_SCALES, B_SUMS, _LESS = 8 * _STEP, 10 * _STEP, 11 * _STEP, 12 * _STEP
B_UNIT = 384
_LANES = 8
_BYTES, _WORDS, _SUMS = (ir.VectorType(kind, 32 * _LANES // kind.width) for kind in (I8, I16, I32))
_VECTORS = 2 * WIDTH


def _call(builder: Any, name: str, result: ir.Type, *values: Any) -> Any:
    signature = ir.FunctionType(result, [each.type for each in values])
    function = cgutils.get_or_insert_function(builder.module, signature, f"llvm.x86.avx2.{name}")
    return builder.call(function, values)


def _add_words(builder: Any, left: Any, right: Any) -> Any:
    """The sum of 16-bit integers, in this order: LLVM's own, a tree, exceeds the registers."""
    same = ir.FunctionType(_WORDS, [_WORDS])
    return builder.asm(same, "", "=x,0", [builder.add(left, right)], False)


def _spread(builder: Any, address: Any, place: int, kind: ir.Type) -> Any:
    value = splat(builder, load_from(builder, address, I32, place), _LANES)
    return builder.bitcast(value, kind)


def _sums_of_half(builder: Any, w: Any, x: Any, half: int, shift: int) -> list[Any]:
    """Of every vector of outputs and token the products of sixteen inputs times their factor."""
    sums: dict[tuple[int, int], Any] = {}
    for row in range(4 * half, 4 * half + 4):
        weights = [load_from(builder, w, _BYTES, ROW * row + 32 * i) for i in range(_VECTORS)]
        for j in range(TOKENS):
            four = _spread(builder, x, _STEP * row + 4 * j, _BYTES)
            for i in range(_VECTORS):
                product = _call(builder, "pmadd.ub.sw", _WORDS, weights[i], four)
                before = sums.get((i, j))
                sums[i, j] = _add_words(builder, before, product) if before else product
    for j in range(TOKENS):
        factor = _spread(builder, x, _FACTORS + _STEP * half + 4 * j, _WORDS)
        if shift:
            less = _spread(builder, x, _LESS + _STEP * half + 4 * j, _WORDS)
            less = builder.shl(less, constant(_WORDS, shift))
        for i in range(_VECTORS):
            right = builder.add(sums[i, j], less) if shift else sums[i, j]
            sums[i, j] = _call(builder, "pmadd.wd", _SUMS, right, factor)
    return [
        concatenate(builder, [sums[2 * i, j], sums[2 * i + 1, j]])
        for i in range(WIDTH)
        for j in range(TOKENS)
    ]


def _byte_step(minimum: bool = False, halves: bool = False, shift: int = 0) -> Any:
    """A step for weights with minima, with a scale for each half, or with 1 << shift added."""

    @define(tile, tile, types.int64, types.int64)
    def step(builder: Any, sums: Any, w: Any, x: Any) -> Any:
        """Add a unit of scaled weights at w times a unit of bytes at x."""
        values = members(builder, sums, WIDTH * TOKENS)
        first = _sums_of_half(builder, w, x, 0, shift)
        if halves:
            add_unit(builder, values, first, offset(builder, w, W_SCALES))
        second = _sums_of_half(builder, w, x, 1, shift)
        if halves:
            add_unit(builder, values, second, offset(builder, w, W_MINIMA))
        else:
            totals = [builder.add(a, b) for a, b in zip(first, second)]
            add_unit(builder, values, totals, offset(builder, w, W_SCALES))
        if minimum:
            x_sums = [load_from(builder, x, F32, B_SUMS + 4 * j) for j in range(TOKENS)]
            add_minima(builder, values, offset(builder, w, W_MINIMA), x_sums)
        return join(builder, values)

    return step


step_bytes_with_minimum = _byte_step(minimum=True)
step_bytes_less_8 = _byte_step(shift=3)
step_bytes_by_halves_less_32 = _byte_step(halves=True, shift=5)


@define(types.none, types.int64, types.int64)
def narrow_weights(builder: Any, w: Any, zero: Any) -> Any:
    """Make a unit of 16-bit weights, plus `zero`, one of bytes, in its place."""
    zeros = splat(builder, builder.trunc(zero, I16), 32)
    for row in range(8):
        for i in range(0, ROW, 64):
            pair = [load_from(builder, w, SHORTS, ROW * (2 * row + k) + i) for k in (0, 1)]
            even, odd = (builder.add(each, zeros) for each in pair)
            store_to(
                builder, builder.or_(even, builder.shl(odd, constant(SHORTS, 8))), w, ROW * row + i
            )


@define(types.none, types.int64, vector, vector, types.int64, types.int64)
def store_bytes(
    builder: Any, address: Any, first: Any, second: Any, factor: Any, other: Any
) -> Any:
    """Write 32 whole numbers of at most MOST, and their factors, to the place of a token."""
    integers = [builder.fptosi(each, INTEGERS) for each in (first, second)]
    shorts = [builder.trunc(each, ir.VectorType(I16, 16)) for each in integers]
    pairs = builder.bitcast(concatenate(builder, shorts), INTEGERS)
    even, odd = (shuffle(builder, pairs, pairs, range(k, 16, 2)) for k in (0, 1))
    low = constant(even.type, 0x00FF00FF)
    eight = constant(even.type, 8)
    fours = builder.or_(builder.and_(even, low), builder.shl(builder.and_(odd, low), eight))
    for row in range(8):
        store_to(builder, builder.extract_element(fours, I32(row)), address, _STEP * row)
    less = builder.bitcast(pairs, SHORTS)
    for size in (8, 4, 2):  # shorts, so that those at even places stay apart from the others
        moved = shuffle(builder, less, less, [(lane + size) % 32 for lane in range(32)])
        less = builder.add(less, moved)
    less = builder.bitcast(builder.sub(constant(SHORTS, 0), less), INTEGERS)
    for half, value in enumerate((factor, other)):
        store_to(
            builder, builder.extract_element(less, I32(8 * half)), address, _LESS + _STEP * half
        )
        short = builder.and_(builder.trunc(value, I32), I32(0xFFFF))
        twice = builder.or_(short, builder.shl(short, I32(16)))
        store_to(builder, twice, address, _FACTORS + _STEP * half)
