"""Tiles: register blocks of a matrix product that take one input a step, for many tokens at a time.

    a panel of weights    input k      outputs 0 ... 31, float32                   ROW bytes
    a tile of sums        token j      outputs 0-15 | outputs 16-31                j = 0 ... 5
    a step                sums of token j += weights of input k * activation k of token j

A vector is sixteen outputs of one token. With AVX-512 a tile is both halves of a panel, 12 of 32
registers; with AVX2 it is one half, 6 of 16 (WIDTH). `int16_tiles` takes pairs of 16-bit integers
at twice the rate; `vdpbf16ps` would be as fast, but keeps 8 bits of an activation.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types

from sparity_edge.kernels.simd.cpu import features
from sparity_edge.kernels.simd.ir import (
    F32,
    FLOATS,
    I64,
    constant,
    define,
    join,
    load_from,
    members,
    multiply_add,
    splat,
    store_to,
)
from sparity_edge.kernels.simd.vectors import tile_type

TOKENS = 6  # of a tile
PANEL = 32  # outputs of a panel of weights
WIDTH = 2 if "avx512f" in features() else 1  # vectors of weights that a step takes
ROW = 4 * PANEL  # bytes of one input (or pair of inputs) in a panel

tile = tile_type(WIDTH, TOKENS)  # sums of vector i and token j at place i * TOKENS + j


@define(tile)
def no_sums(_builder: Any) -> Any:
    """A tile of zeros."""
    return ir.Constant(tile.kind, [constant(FLOATS, 0.0)] * (WIDTH * TOKENS))


@define(tile, types.int64, types.int64)
def load_sums(builder: Any, address: Any, stride: Any) -> Any:
    """A tile: float32 of six tokens, `stride` bytes apart."""
    values = {}
    for j in range(TOKENS):
        row = builder.add(address, builder.mul(stride, I64(j)))
        for i in range(WIDTH):
            values[i * TOKENS + j] = load_from(builder, row, FLOATS, 64 * i)
    return join(builder, [values[index] for index in range(WIDTH * TOKENS)])


@define(types.none, types.int64, types.int64, tile)
def store_sums(builder: Any, address: Any, stride: Any, sums: Any) -> Any:
    """Write what `load_sums` reads."""
    values = members(builder, sums, WIDTH * TOKENS)
    for j in range(TOKENS):
        row = builder.add(address, builder.mul(stride, I64(j)))
        for i in range(WIDTH):
            store_to(builder, values[i * TOKENS + j], row, 64 * i)


def _float_step(distance: int) -> Any:
    @define(tile, tile, types.int64, types.int64)
    def step(builder: Any, sums: Any, w: Any, x: Any) -> Any:
        """Add vectors of weights at w times one number of each token at x."""
        weights = [load_from(builder, w, FLOATS, 64 * i) for i in range(WIDTH)]
        values = members(builder, sums, WIDTH * TOKENS)
        for j in range(TOKENS):
            number = splat(builder, load_from(builder, x, F32, distance * j))
            for i in range(WIDTH):
                index = i * TOKENS + j
                values[index] = multiply_add(builder, weights[i], number, values[index])
        return join(builder, values)

    return step


step_side_by_side = _float_step(4)  # numbers of the six tokens follow each other
step_rows_of_64 = _float_step(256)  # each token has a row of 64 numbers
