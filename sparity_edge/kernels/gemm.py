"""Matrix product for many tokens: Y = X W^T.

Activations are packed once, six tokens side by side, for all matrices that read them. A chunk is
a panel of 32 outputs: a block of its inputs is unpacked into L1 and multiplied with all tokens,
whose sums wait in L2, then the next. int8 and int4 weights stay integers where the CPU has a
16-bit dot product: activations are 16-bit integers then, with a scale for every 128. Two cores of
an AMD EPYC (Zen 5) do 820 of at most 1070 GFLOP/s that way, and 470 of 535 in float32.
"""

from __future__ import annotations

from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import DTYPE, INT4K, INT6K, MINIMUM, OUTPUTS
from sparity_edge.kernels.panels import (
    expect_word_rows,
    float_panel_of_columns,
    float_panel_of_rows,
    unpack_rows,
    word_panel_of_columns,
    word_panel_of_rows,
)
from sparity_edge.kernels.simd import (
    add,
    fma,
    largest,
    load,
    load_f32,
    load_i64,
    maximum,
    mul,
    prefetch,
    splat,
    store,
    store_f32,
    sub,
    total,
)
from sparity_edge.kernels.superblocks import word_panel_of_superblocks
from sparity_edge.kernels.tiles import (
    PANEL,
    ROW,
    TOKENS,
    UNIT,
    W_UNIT,
    WIDTH,
    X_SCALES,
    X_SUMS,
    X_UNIT,
    add_scaled_sums,
    load_sums,
    no_sums,
    step_side_by_side,
    step_words,
    step_words_by_halves,
    step_words_with_minimum,
    store_sums,
    store_words,
    turn_floats,
)

FLOAT_BLOCK = 256  # inputs of a panel in L1: 32 KB
WORD_BLOCK = 8  # units of 32 inputs: 18 KB, and 4 KB of activations; 12 lose 10 %, 16 lose 40 %
SUMS = ROW * TOKENS  # bytes of a tile
SMALL_SCRATCH = 256  # bytes for unpacking a row
PANEL_BYTES = max(FLOAT_BLOCK * ROW, WORD_BLOCK * W_UNIT)
SHARED = 4  # units of activations that share a scale; 1 costs 4 % of the speed
MOST = 32767

# Arguments of both kernels that pack. Tiles of floats take TILE bytes each; words go by blocks of
# WORD_BLOCK units, all tiles of a block behind each other, so that a product reads straight on.
X, X_STRIDE, X_TOKENS, PACKED, TILE, SIZE = (8 * word for word in range(6))
# Arguments of both products. DEPTH counts inputs (floats) or units (words).
(
    W,
    TILES,
    TILE_BYTES,
    COUNT,
    BIAS,
    OUT,
    OUT_STRIDE,
    ACCUMULATE,
    DEPTH,
    INPUT_MAJOR,
) = (8 * word for word in range(10))


@Kernel
def pack_floats(arguments: int, chunk: int, scratch: int) -> None:
    """Six rows of X as (SIZE, 6), the last one again for those not there; SIZE is 16 n."""
    tokens, stride = load_i64(arguments + X_TOKENS), load_i64(arguments + X_STRIDE)
    first = chunk * TOKENS
    x = load_i64(arguments + X) + first * stride
    out = load_i64(arguments + PACKED) + chunk * load_i64(arguments + TILE)
    last = min(TOKENS, tokens - first) - 1
    for i in range(0, load_i64(arguments + SIZE), 16):
        turn_floats(scratch, 64, x + 4 * i, stride, last)
        # A store of sixteen writes six that count and ten that the next stores put right.
        for k in range(14):
            store(out + 4 * TOKENS * (i + k), load(scratch + 64 * k))
        for k in range(14, 16):
            for j in range(TOKENS):
                number = load_f32(scratch + 64 * k + 4 * j)
                store_f32(out + 4 * (TOKENS * (i + k) + j), number)


@device
def _scale_of(x: int) -> tuple[float, float]:
    """The scale of the integers of SHARED units, and its inverse."""
    sizes, broken = splat(0.0), splat(0.0)
    for i in range(0, 4 * SHARED * UNIT, 64):
        value = load(x + i)
        sizes = maximum(sizes, maximum(value, sub(splat(0.0), value)))
        broken = fma(value, splat(0.0), broken)
    most = largest(sizes)
    # What is no number is lost in the comparisons; 0 * x brings it back.
    return most / MOST + total(broken), MOST / most if most > 0 else 0.0


@Kernel
def pack_words(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Six rows of X as units of 16-bit integers, scales and sums; SIZE is a multiple of 32."""
    tokens, stride = load_i64(arguments + X_TOKENS), load_i64(arguments + X_STRIDE)
    tiles = (tokens + TOKENS - 1) // TOKENS
    for j in range(TOKENS):
        x = load_i64(arguments + X) + min(chunk * TOKENS + j, tokens - 1) * stride
        out = load_i64(arguments + PACKED) + chunk * WORD_BLOCK * X_UNIT
        for i in range(0, load_i64(arguments + SIZE), SHARED * UNIT):
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
def _put(arguments: int, first: int, sums: int) -> None:
    """Write a panel of all tokens: sum + bias + what is there, as the arguments say."""
    outputs, tokens = load_i64(load_i64(arguments + W) + OUTPUTS), load_i64(arguments + COUNT)
    bias, accumulate = load_i64(arguments + BIAS), load_i64(arguments + ACCUMULATE) != 0
    whole = min(PANEL, outputs - first) // 16 * 16
    for token in range(tokens):
        out = load_i64(arguments + OUT) + token * load_i64(arguments + OUT_STRIDE) + 4 * first
        row = sums + ROW * token
        for i in range(0, 4 * whole, 64):
            value = load(row + i)
            if bias != 0:
                value = add(value, load(bias + 4 * first + i))
            if accumulate:
                value = add(value, load(out + i))
            store(out + i, value)
        # Behind the last output a row holds zeros, which have to stay.
        for i in range(whole, min(PANEL, outputs - first)):
            number = load_f32(row + 4 * i)
            if bias != 0:
                number += load_f32(bias + 4 * (first + i))
            if accumulate:
                number += load_f32(out + 4 * i)
            store_f32(out + 4 * i, number)


@device
def _multiply_floats(panel: int, count: int, x: int, sums: int, begin: bool) -> None:
    """Add a block of `count` inputs to the sums of one tile."""
    for part in range(0, PANEL, 16 * WIDTH):
        w = panel + 4 * part
        tile = no_sums() if begin else load_sums(sums + 4 * part, ROW)
        for k in range(count):
            tile = step_side_by_side(tile, w + ROW * k, x + 4 * TOKENS * k)
        store_sums(sums + 4 * part, ROW, tile)


@Kernel
def gemm_floats(arguments: int, chunk: int, scratch: int) -> None:
    """PANEL outputs of all tokens in float32; activations come from `pack_floats`."""
    matrix, depth = load_i64(arguments + W), load_i64(arguments + DEPTH)
    tiles, first = (load_i64(arguments + COUNT) + TOKENS - 1) // TOKENS, chunk * PANEL
    input_major = load_i64(arguments + INPUT_MAJOR) != 0
    panel = scratch + SMALL_SCRATCH
    sums = panel + PANEL_BYTES
    rows, stride, count = 0, 0, 0
    if not input_major:
        rows, stride, count = unpack_rows(matrix, first, sums + SUMS * tiles, scratch)
    for start in range(0, depth, FLOAT_BLOCK):
        stop = min(start + FLOAT_BLOCK, depth)
        if input_major:
            float_panel_of_columns(matrix, first, start, stop, panel)
        else:
            float_panel_of_rows(rows, stride, count, start, stop, panel)
        x = load_i64(arguments + TILES) + 4 * TOKENS * start
        for tile in range(tiles):
            _multiply_floats(panel, stop - start, x, sums + SUMS * tile, start == 0)
            x += load_i64(arguments + TILE_BYTES)
    _put(arguments, first, sums)


@device
def _multiply_words(panel: int, count: int, x: int, sums: int, minimum: bool, halves: bool) -> None:
    """Add a block of `count` units to the sums of one tile."""
    for part in range(0, 4 * PANEL, 64 * WIDTH):
        _multiply_part(panel + part, count, x, sums + part, minimum, halves)


@device
def _multiply_part(panel: int, count: int, x: int, sums: int, minimum: bool, halves: bool) -> None:
    for first in range(0, count, SHARED):
        tile = no_sums()
        for unit in range(first, min(first + SHARED, count)):
            w = panel + W_UNIT * unit
            for line in range(0, X_UNIT, 64):
                prefetch(x + line + WORD_BLOCK * X_UNIT)
            if minimum:
                tile = step_words_with_minimum(tile, w, x)
            elif halves:
                tile = step_words_by_halves(tile, w, x)
            else:
                tile = step_words(tile, w, x)
            x += X_UNIT
        add_scaled_sums(sums, tile, x - X_UNIT)


@Kernel
def gemm_words(arguments: int, chunk: int, scratch: int) -> None:
    """PANEL outputs of all tokens from integers; activations come from `pack_words`."""
    matrix, depth = load_i64(arguments + W), load_i64(arguments + DEPTH)
    tiles, first = (load_i64(arguments + COUNT) + TOKENS - 1) // TOKENS, chunk * PANEL
    minimum, dtype = load_i64(matrix + MINIMUM) != 0, load_i64(matrix + DTYPE)
    panel = scratch + SMALL_SCRATCH
    sums = panel + PANEL_BYTES
    for i in range(0, SUMS * tiles, 64):
        store(sums + i, splat(0.0))
    for start in range(0, depth, WORD_BLOCK):
        stop = min(start + WORD_BLOCK, depth)
        if load_i64(arguments + INPUT_MAJOR) != 0:
            word_panel_of_columns(matrix, first, start, stop, panel)
        else:
            if dtype >= INT4K:
                word_panel_of_superblocks(matrix, first, start, stop, panel)
            else:
                word_panel_of_rows(matrix, first, start, stop, panel)
            if stop < depth:
                expect_word_rows(matrix, first, stop, min(stop + WORD_BLOCK, depth))
            else:
                expect_word_rows(matrix, first + PANEL, 0, min(WORD_BLOCK, depth))
        x = load_i64(arguments + TILES) + X_UNIT * start * tiles
        for tile in range(tiles):
            place = sums + SUMS * tile
            _multiply_words(panel, stop - start, x, place, minimum, dtype == INT6K)
            x += WORD_BLOCK * X_UNIT
    _put(arguments, first, sums)
