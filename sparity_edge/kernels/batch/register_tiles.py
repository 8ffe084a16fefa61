"""Register tiles for a few tokens: a block of two rows, unpacked into L1, times up to four tokens.

    lanes of one instruction     lane 0    lane 1   ...            a vector of weights: 64 bytes,
    row 0 . token 0                 s         s                    four inputs in every lane, as
    row 1 . token 0                 s         s                    drawn in `block_dots`, `kquants`
      ...
    row 1 . token 3                 s         s

Eight sums and what they are made of fit into sixteen registers, so lanes are those of one dot
instruction, not the sixteen of other vectors: LLVM would split those and run out of registers.
Where bytes are multiplied, weights lie in L1 as bytes; else as 16-bit integers, for the first and
then for the second half of activations (see `integer_dots`). Sums are integers, the same as those
of one token alone, and what they are scaled by and added to are the steps of `decode.dots` and
`decode.kquant_dots`. Everything here is an intrinsic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils, types

from sparity_edge.kernels.decode.dot_arguments import DOT
from sparity_edge.kernels.simd.cpu import byte_dot
from sparity_edge.kernels.simd.integer_dots import carry_part, dot_lanes, dot_part
from sparity_edge.kernels.simd.ir import (
    F32,
    I32,
    I64,
    LANES,
    SHORTS,
    constant,
    define,
    load_from,
    mask_bits,
    shift_right,
    store_to,
)
from sparity_edge.kernels.simd.vectors import byte_vector

ROWS, TOKENS = 2, (4, 2, 1)  # of a tile
VECTORS = 8  # of a block
# Bytes of a vector of weights in L1, from its first to its second half, and of a row.
W_VECTOR, W_HALF = (64, 0) if byte_dot() else (128, 64)
W_ROW = VECTORS * W_VECTOR
# Bytes of what a row of up to eight tokens is summed up to: two vectors each.
TOTAL = 128
ROW_TOTALS = 8 * TOTAL
SCALES = 384  # bytes of the scales of a row: up to six vectors
# With 32 registers both halves of activations have sums of their own: sixteen wait less for each
# other than eight.
BOTH_HALVES = byte_dot() == "avx512vnni"


class _Tile(NamedTuple):
    totals: Any
    w: Any
    vectors: Any
    scales: Any


def write_weights(builder: Any, weights: Any, address: Any, vector: int = 0) -> None:
    """Write a vector of unsigned bytes as tiles read it: W_VECTOR bytes, at their place."""
    at = vector * W_VECTOR
    if byte_dot():
        store_to(builder, weights, address, at)
        return
    shorts = builder.bitcast(weights, SHORTS)
    store_to(builder, mask_bits(builder, shorts, 255), address, at)
    store_to(builder, shift_right(builder, shorts, 8), address, at + W_HALF)


@define(types.none, types.int64, byte_vector)
def store_weights(builder: Any, address: Any, weights: Any) -> Any:
    """`write_weights` from compiled Python."""
    write_weights(builder, weights, address)


# --- sums of integers -------------------------------------------------------------------------


# Bytes between the activations of two vectors, and between their halves: as `block_dots` and as
# `kquants` have them.
_BLOCKS, _KQUANTS = (64, 512), (128, 64)
Order = tuple[int, int]


def _sums(builder: Any, order: Order, tile: _Tile, x: Sequence[Any], skip: int) -> list[Any]:
    """Sums of the lanes from byte `skip` on: both rows of a token, then of the next."""
    kind = ir.VectorType(I32, dot_lanes())
    sums = [constant(kind, 0)] * (ROWS * len(x))
    if BOTH_HALVES:
        first, second = _add_halves(builder, order, tile, x, skip, {0: sums, 1: sums})
        return [builder.add(carry_part(builder, each), rest) for each, rest in zip(first, second)]
    for half in range(2):
        (sums,) = _add_halves(builder, order, tile, x, skip, {half: sums})
        sums = sums if half else [carry_part(builder, each) for each in sums]
    return sums


def _add_halves(
    builder: Any, order: Order, tile: _Tile, x: Sequence[Any], skip: int,
    sums: dict[int, list[Any]],
) -> list[list[Any]]:  # fmt: skip
    """Add to sums those of the halves of activations that they are given for.

    A loop, whose length LLVM must not know: unrolled, it runs out of registers.
    """
    places = {
        half: [cgutils.alloca_once_value(builder, each) for each in own]
        for half, own in sums.items()
    }
    kind = ir.VectorType(I32, dot_lanes())
    with cgutils.for_range(builder, builder.lshr(tile.vectors, I64(1))) as loop:
        w = builder.add(tile.w, builder.mul(loop.index, I64(2 * W_VECTOR)))
        done = builder.mul(loop.index, I64(2 * order[0]))
        for odd in range(2):
            for half, own in places.items():
                at = half * W_HALF + odd * W_VECTOR + skip
                weights = [load_from(builder, w, kind, at + W_ROW * row) for row in range(ROWS)]
                at = half * order[1] + odd * order[0] + skip
                for token, address in enumerate(x):
                    values = load_from(builder, builder.add(address, done), kind, at)
                    for row, numbers in enumerate(weights):
                        total = own[ROWS * token + row]
                        dots = dot_part(builder, builder.load(total), numbers, values)
                        builder.store(dots, total)
    return [[builder.load(place) for place in own] for own in places.values()]


# --- scaled and added up ----------------------------------------------------------------------

# Of a token in a tile: the addresses of its digits, of its scales (of K-quants all floats), and of
# its sums.
Token = Sequence[Any]


def _for_tokens(emit: Callable[..., None]) -> tuple[Any, Any, Any]:
    """Intrinsics for four tokens, for two, and for one.

    Args:
        emit: (builder, tile, tokens, skip) adds what the lanes from byte `skip` on sum up to.
    """

    def intrinsic(count: int) -> Any:
        @define(types.none, *[types.int64] * 8)
        def multiply(
            builder: Any, totals: Any, w: Any, vectors: Any, scales: Any, own: Any, own_bytes: Any,
            x: Any, y: Any,
        ) -> Any:  # fmt: skip
            """Add the products of a block of two rows with some tokens to their totals.

            Totals of rows are ROW_TOTALS bytes apart, those of tokens TOTAL; `vectors` vectors of
            weights of each row stand at w, an even number, and SCALES bytes at `scales`. Argument
            blocks of tokens are OWN_BYTES apart; the block stands x bytes into their digits and y
            into their scales and sums.
            """
            tokens = []
            for token in range(count):
                block = builder.add(own, builder.mul(own_bytes, I64(token)))
                words = ((DOT.digits, x), (DOT.scales, y), (DOT.sums, y))
                tokens.append(
                    [builder.add(load_from(builder, block, I64, at), by) for at, by in words]
                )
            for first in range(0, LANES, dot_lanes()):
                emit(builder, _Tile(totals, w, vectors, scales), tokens, 4 * first)

        return multiply

    four, two, one = map(intrinsic, TOKENS)
    return four, two, one


def _floats(builder: Any, address: Any, at: int) -> Any:
    return load_from(builder, address, ir.VectorType(F32, dot_lanes()), at)


def _to_floats(builder: Any, sums: Any) -> Any:
    return builder.sitofp(sums, ir.VectorType(F32, dot_lanes()))


def _fma(builder: Any, left: Any, right: Any, addend: Any) -> Any:
    kind = ir.FunctionType(left.type, [left.type] * 3)
    name = f"llvm.fmuladd.v{left.type.count}f32"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [left, right, addend])


def _add_block(builder: Any, tile: _Tile, tokens: Sequence[Token], skip: int) -> None:
    """int8, int4: of each row scales and minima, of each token digits, scales and sums."""
    sums = _sums(builder, _BLOCKS, tile, [each[0] for each in tokens], skip)
    for token, (_, x_scales, x_sums) in enumerate(tokens):
        x_scale, x_sum = _floats(builder, x_scales, skip), _floats(builder, x_sums, skip)
        for row in range(ROWS):
            number = _to_floats(builder, sums[ROWS * token + row])
            for at, right in ((0, number), (64, x_sum)):
                place = TOTAL * token + ROW_TOTALS * row + at + skip
                scale = _floats(builder, tile.scales, SCALES * row + at + skip)
                old = _floats(builder, tile.totals, place)
                new = _fma(builder, builder.fmul(scale, x_scale), right, old)
                store_to(builder, new, tile.totals, place)


def _add_fours(builder: Any, tile: _Tile, tokens: Sequence[Token], skip: int) -> None:
    """int4k: of each row scales and minima, of each token digits and floats (X_FLOATS)."""
    sums = _sums(builder, _KQUANTS, tile, [each[0] for each in tokens], skip)
    for token, (_, about, _) in enumerate(tokens):
        x_scale, x_least = _floats(builder, about, skip), _floats(builder, about, 64 + skip)
        for row in range(ROWS):
            place = TOTAL * token + ROW_TOTALS * row + skip
            scale = _floats(builder, tile.scales, SCALES * row + skip)
            least = _floats(builder, tile.scales, SCALES * row + 64 + skip)
            number = _to_floats(builder, sums[ROWS * token + row])
            old = _fma(builder, least, x_least, _floats(builder, tile.totals, place))
            new = _fma(builder, builder.fmul(scale, x_scale), number, old)
            store_to(builder, new, tile.totals, place)


def _sums_of_half(
    builder: Any, tile: _Tile, tokens: Sequence[Token], skip: int, half: int
) -> list[Any]:
    """Sums of products with a half of every group, whose vectors are half of a block's."""
    w = builder.add(tile.w, I64(half * VECTORS // 2 * W_VECTOR))
    x = [builder.add(each[0], I64(half * VECTORS // 2 * _KQUANTS[0])) for each in tokens]
    return _sums(builder, _KQUANTS, tile._replace(w=w), x, skip)


def _zeros(builder: Any, about: Any, half: int, skip: int) -> Any:
    """-32 times the sums of activations of a half of every group."""
    return load_from(builder, about, ir.VectorType(I32, dot_lanes()), 128 + 64 * half + skip)


def _adding_halves(halves: int, places: int) -> Callable[..., None]:
    """Add blocks of which each half of a group has a scale of its own: int6k, int3k.

    Args:
        halves: of a group in the block.
        places: the number 0 stands for minus 32 >> places.
    """

    def add(builder: Any, tile: _Tile, tokens: Sequence[Token], skip: int) -> None:
        """Of each row factors and scales for each half of a group."""
        results: list[Any] = []
        for half in range(halves):
            for index, each in enumerate(_sums_of_half(builder, tile, tokens, skip, half)):
                token, row = divmod(index, ROWS)
                zeros = _zeros(builder, tokens[token][1], half, skip)
                zeros = builder.ashr(zeros, constant(zeros.type, places))
                scale = _floats(builder, tile.scales, SCALES * row + 64 * (1 + half) + skip)
                number = _to_floats(builder, builder.add(each, zeros))
                if half:
                    results[index] = _fma(builder, scale, number, results[index])
                else:
                    results.append(builder.fmul(scale, number))
        for index, result in enumerate(results):
            token, row = divmod(index, ROWS)
            place = TOTAL * token + ROW_TOTALS * row + skip
            factor = _floats(builder, tile.scales, SCALES * row + skip)
            factor = builder.fmul(factor, _floats(builder, tokens[token][1], skip))
            new = _fma(builder, factor, result, _floats(builder, tile.totals, place))
            store_to(builder, new, tile.totals, place)

    return add


def _add_twos(builder: Any, tile: _Tile, tokens: Sequence[Token], skip: int) -> None:
    """int2k: of each row factors of scales and minima, scales of halves, minima of halves."""
    results: list[Any] = []
    for half in range(2):
        for index, each in enumerate(_sums_of_half(builder, tile, tokens, skip, half)):
            scale = _floats(builder, tile.scales, SCALES * (index % ROWS) + 128 + 64 * half + skip)
            number = _to_floats(builder, each)
            if half:
                results[index] = _fma(builder, scale, number, results[index])
            else:
                results.append(builder.fmul(scale, number))
    for index, result in enumerate(results):
        token, row = divmod(index, ROWS)
        about, scales = tokens[token][1], SCALES * row + skip
        first, second = (_to_floats(builder, _zeros(builder, about, half, skip)) for half in (0, 1))
        least = builder.fmul(_floats(builder, tile.scales, scales + 256), first)
        least = _fma(builder, _floats(builder, tile.scales, scales + 320), second, least)
        factor = builder.fmul(_floats(builder, tile.scales, scales), result)
        both = _fma(builder, _floats(builder, tile.scales, scales + 64), least, factor)
        place = TOTAL * token + ROW_TOTALS * row + skip
        old = _floats(builder, tile.totals, place)
        store_to(
            builder, _fma(builder, _floats(builder, about, skip), both, old), tile.totals, place
        )


groups_by = _for_tokens(_add_block)
fours_by = _for_tokens(_add_fours)
sixes_by, half_sixes_by = (_for_tokens(_adding_halves(halves, 0)) for halves in (2, 1))
threes_by, twos_by = _for_tokens(_adding_halves(2, 3)), _for_tokens(_add_twos)
