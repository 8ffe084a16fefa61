"""Packing of activations for products of many tokens: six side by side, once for all matrices.

    floats, a tile     input 0 of tokens 0 ... 5, input 1 of tokens 0 ... 5, ...
    words, a unit      32 inputs of six tokens with scales and sums, drawn in `simd/int16_tiles.py`
    words, a block     WORD_BLOCK units of tile 0, as many of tile 1, ...; then the next block
    bytes              units as `prefill/byte_tiles.py` draws them, in blocks as those of words

Words are 16-bit integers with a scale for every SHARED units of a token. Bytes have such a scale,
too, and sixteen of them a whole number as a factor on it; `reference/rounding.py` is their twin.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.prefill import byte_tiles
from sparity_edge.kernels.prefill.byte_tiles import B_SCALES, B_SUMS, B_UNIT, store_bytes
from sparity_edge.kernels.simd.float_tiles import TOKENS
from sparity_edge.kernels.simd.int16_tiles import UNIT, X_SCALES, X_SUMS, X_UNIT, store_words
from sparity_edge.kernels.simd.memory import load, load_f32, load_i64, store, store_f32
from sparity_edge.kernels.simd.transposes import transpose_floats
from sparity_edge.kernels.simd.vectors import (
    fma,
    largest,
    maximum,
    mul,
    rounded,
    splat,
    sub,
    total,
)
from sparity_edge.kernels.words import Words

# Units of 32 inputs in a block of 256: 22 KB, and 4 KB of activations; 12 lose 10 %, 16 lose 40 %
# (AMD EPYC; bench/kernels.py).
WORD_BLOCK = 8
# Units of activations that share a scale; 1 costs 4 % of the speed (AMD EPYC; bench/kernels.py).
SHARED = 4
MOST = 32767 - 128  # of an activation: a weight is added to it
MOST_BYTE, MOST_FACTOR = float(byte_tiles.MOST), float(byte_tiles.MOST_FACTOR)
ALMOST = np.float32(1 - 2.0**-20)  # so that the largest size of a block has MOST_FACTOR
LEAST = 1e-32  # smaller activations count as zero: inverses of their bytes' scales are not finite

# Tiles of floats take TILE_BYTES each; words go by blocks of WORD_BLOCK units, all tiles of a block
# one after the other, so that a product reads straight on.
PACK = Words("x x_stride tokens packed tile_bytes size")


@Kernel(PACK)
def pack_floats(arguments: int, chunk: int, scratch: int) -> None:
    """Six rows of X as (SIZE, 6), the last one again for those not there; SIZE is 16 n."""
    tokens, stride = load_i64(arguments + PACK.tokens), load_i64(arguments + PACK.x_stride)
    first = chunk * TOKENS
    x = load_i64(arguments + PACK.x) + first * stride
    out = load_i64(arguments + PACK.packed) + chunk * load_i64(arguments + PACK.tile_bytes)
    last = min(TOKENS, tokens - first) - 1
    for i in range(0, load_i64(arguments + PACK.size), 16):
        transpose_floats(scratch, 64, x + 4 * i, stride, last)
        # A store of sixteen writes six that count and ten that the next stores put right.
        for k in range(14):
            store(out + 4 * TOKENS * (i + k), load(scratch + 64 * k))
        for k in range(14, 16):
            for j in range(TOKENS):
                number = load_f32(scratch + 64 * k + 4 * j)
                store_f32(out + 4 * (TOKENS * (i + k) + j), number)


@device
def _largest_of(x: int) -> tuple[float, float]:
    """The largest size of SHARED units, and a number that is NaN where one of them is."""
    sizes, broken = splat(0.0), splat(0.0)
    for i in range(0, 4 * SHARED * UNIT, 64):
        value = load(x + i)
        sizes = maximum(sizes, maximum(value, sub(splat(0.0), value)))
        broken = fma(value, splat(0.0), broken)
    # NaN is lost in the comparisons; 0 * x brings it back.
    return largest(sizes), total(broken)


@device
def _scale_of(x: int) -> tuple[float, float]:
    """The scale of the integers of SHARED units, and its inverse."""
    most, broken = _largest_of(x)
    return most / MOST + broken, MOST / most if most > 0 else 0.0


@Kernel(PACK)
def pack_words(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Six rows of X as units of 16-bit integers, scales and sums; SIZE is a multiple of 32."""
    tokens, stride = load_i64(arguments + PACK.tokens), load_i64(arguments + PACK.x_stride)
    tiles = (tokens + TOKENS - 1) // TOKENS
    for j in range(TOKENS):
        x = load_i64(arguments + PACK.x) + min(chunk * TOKENS + j, tokens - 1) * stride
        out = load_i64(arguments + PACK.packed) + chunk * WORD_BLOCK * X_UNIT
        for i in range(0, load_i64(arguments + PACK.size), SHARED * UNIT):
            if i > 0 and i % (UNIT * WORD_BLOCK) == 0:
                out += (tiles - 1) * WORD_BLOCK * X_UNIT
            scale, inverse = _scale_of(x + 4 * i)
            for unit in range(i, i + SHARED * UNIT, UNIT):
                v, w = load(x + 4 * unit), load(x + 4 * unit + 64)
                rounded = store_words(out + 4 * j, mul(v, splat(inverse)), mul(w, splat(inverse)))
                store_f32(out + X_SCALES + 4 * j, scale)
                store_f32(out + X_SUMS + 4 * j, total(rounded))
                out += X_UNIT


@device
def _bytes_of(x: int, most: float) -> tuple[int, Any]:
    """The factor of sixteen activations, and what they are over its scale, as whole numbers."""
    value = load(x)
    inverse = np.float32(MOST_FACTOR) / most
    factor = int(largest(maximum(value, sub(splat(0.0), value))) * (inverse * ALMOST)) + 1
    inverse = np.float32(MOST_BYTE) * inverse / np.float32(factor)
    return factor, rounded(mul(value, splat(inverse)))


@Kernel(PACK)
def pack_bytes(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Six rows of X as units of bytes, factors, scales and sums; SIZE is a multiple of 32."""
    tokens, stride = load_i64(arguments + PACK.tokens), load_i64(arguments + PACK.x_stride)
    tiles = (tokens + TOKENS - 1) // TOKENS
    for j in range(TOKENS):
        x = load_i64(arguments + PACK.x) + min(chunk * TOKENS + j, tokens - 1) * stride
        out = load_i64(arguments + PACK.packed) + chunk * WORD_BLOCK * B_UNIT
        for i in range(0, load_i64(arguments + PACK.size), SHARED * UNIT):
            if i > 0 and i % (UNIT * WORD_BLOCK) == 0:
                out += (tiles - 1) * WORD_BLOCK * B_UNIT
            most, broken = _largest_of(x + 4 * i)
            scale = most / np.float32(MOST_BYTE * MOST_FACTOR) + broken if most > LEAST else broken
            most = max(most, np.float32(LEAST))
            for unit in range(i, i + SHARED * UNIT, UNIT):
                factor, first = _bytes_of(x + 4 * unit, most)
                other, second = _bytes_of(x + 4 * unit + 64, most)
                store_bytes(out + 4 * j, first, second, factor, other)
                store_f32(out + B_SCALES + 4 * j, scale)
                store_f32(out + B_SUMS + 4 * j, factor * total(first) + other * total(second))
                out += B_UNIT
