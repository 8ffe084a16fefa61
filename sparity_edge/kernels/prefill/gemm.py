"""Matrix product for many tokens: Y = X W^T.

Activations are packed once, six tokens side by side, for all matrices that read them (`packing`). A
block of inputs of a panel of 32 outputs is unpacked into L1 and multiplied with all tokens, whose
sums wait in L2, then the next. int8 and int4 weights stay integers where the CPU has a 16-bit dot
product: activations are 16-bit integers then, with a scale for every 128, and a chunk is a few
panels, which share the reads of a block of activations from L2. Two cores of an AMD EPYC (Zen 5)
do 1020 GFLOP/s that way (`int16_tiles` says how: one product at a time, they could do 1070), and
470 of 535 in float32. With AVX2 and no more, `byte_gemm` takes its place for long prompts.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.decode.unpack import unpack_row
from sparity_edge.kernels.kernel import Kernel, device, inlined
from sparity_edge.kernels.matrix import DTYPE, INT6K, MINIMUM, OUTPUTS
from sparity_edge.kernels.prefill.blocks import (
    GEMM,
    prefetch_kquant_rows,
    prefetch_words,
    unpack_kquants,
    unpack_words,
)
from sparity_edge.kernels.prefill.packing import SHARED, WORD_BLOCK
from sparity_edge.kernels.prefill.panels import (
    float_panel_of_columns,
    float_panel_of_rows,
    unpack_rows,
)
from sparity_edge.kernels.simd.float_tiles import (
    PANEL,
    ROW,
    TOKENS,
    WIDTH,
    load_sums,
    no_sums,
    step_side_by_side,
    store_sums,
)
from sparity_edge.kernels.simd.int16_tiles import (
    CROSSED,
    W_UNIT,
    X_SCALES,
    X_UNIT,
    add_scaled_sums,
    cross_weights,
    cross_weights_by_halves,
    step_words,
    step_words_by_halves,
    step_words_by_halves_with_minima,
    step_words_with_minimum,
)
from sparity_edge.kernels.simd.memory import load, load_f32, load_i64, prefetch, store, store_f32
from sparity_edge.kernels.simd.vectors import add, splat

FLOAT_BLOCK = 256  # inputs of a panel in L1: 32 KB
SUMS = ROW * TOKENS  # bytes of a tile
# Panels of a chunk: 1 loses 4-6 % where activations exceed L2, 8 loses as much (AMD EPYC, Zen 5;
# bench/kernels.py).
MOST_PANELS = 4
SMALL_SCRATCH = 256  # bytes for unpacking a row
PANEL_BYTES = max(FLOAT_BLOCK * ROW, WORD_BLOCK * W_UNIT)


@device
def _put(arguments: int, first: int, sums: int) -> None:
    """Write a panel of all tokens: sum + bias + what is there, as the argument block says."""
    outputs = load_i64(load_i64(arguments + GEMM.matrix) + OUTPUTS)
    tokens = load_i64(arguments + GEMM.tokens)
    bias, accumulate = load_i64(arguments + GEMM.bias), load_i64(arguments + GEMM.accumulate) != 0
    whole = min(PANEL, outputs - first) // 16 * 16
    for token in range(tokens):
        out = load_i64(arguments + GEMM.out) + 4 * first
        out += token * load_i64(arguments + GEMM.out_stride)
        row = sums + ROW * token
        for i in range(0, 4 * whole, 64):
            value = load(row + i)
            if bias != 0:
                value = add(value, load(bias + 4 * first + i))
            if accumulate:
                value = add(value, load(out + i))
            store(out + i, value)
        # After the last output a row holds zeros, which have to stay.
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


@inlined
def multiply_floats_of(arguments: int, chunk: int, scratch: int, unpack: Any) -> None:
    """What `gemm_floats` does, by a function that unpacks as `unpack_row` does."""
    matrix, depth = load_i64(arguments + GEMM.matrix), load_i64(arguments + GEMM.depth)
    tiles, first = (load_i64(arguments + GEMM.tokens) + TOKENS - 1) // TOKENS, chunk * PANEL
    input_major = load_i64(arguments + GEMM.input_major) != 0
    panel = scratch + SMALL_SCRATCH
    sums = panel + PANEL_BYTES
    rows, stride, count = 0, 0, 0
    if not input_major:
        rows, stride, count = unpack_rows(matrix, first, sums + SUMS * tiles, scratch, unpack)
    for start in range(0, depth, FLOAT_BLOCK):
        stop = min(start + FLOAT_BLOCK, depth)
        if input_major:
            float_panel_of_columns(matrix, first, start, stop, panel)
        else:
            float_panel_of_rows(rows, stride, count, start, stop, panel)
        x = load_i64(arguments + GEMM.tiles) + 4 * TOKENS * start
        for tile in range(tiles):
            _multiply_floats(panel, stop - start, x, sums + SUMS * tile, start == 0)
            x += load_i64(arguments + GEMM.tile_bytes)
    _put(arguments, first, sums)


@Kernel(GEMM)
def gemm_floats(arguments: int, chunk: int, scratch: int) -> None:
    """PANEL outputs of all tokens in float32; activations come from `pack_floats`."""
    multiply_floats_of(arguments, chunk, scratch, unpack_row)


def multiplying(step: Any, unit_bytes: int, scales: int) -> Any:
    """A function that adds a block of units to the sums of one tile, by such a step.

    Args:
        step: adds a unit of weights times a unit of activations to a tile.
        unit_bytes: of a unit of activations.
        scales: where in it those of the tokens stand.
    """

    @device
    def multiply_part(panel: int, count: int, x: int, sums: int) -> None:
        for first in range(0, count, SHARED):
            tile = no_sums()
            for unit in range(first, min(first + SHARED, count)):
                for line in range(0, unit_bytes, 64):
                    prefetch(x + line + WORD_BLOCK * unit_bytes)
                tile = step(tile, panel + W_UNIT * unit, x)
                x += unit_bytes
            add_scaled_sums(sums, tile, x - unit_bytes + scales)

    @device
    def multiply(panel: int, count: int, x: int, sums: int) -> None:
        """Add a block of `count` units to the sums of one tile."""
        for part in range(0, 4 * PANEL, 64 * WIDTH):
            multiply_part(panel + part, count, x, sums + part)

    return multiply


_multiply, multiply_with_minimum, _multiply_by_halves, multiply_by_halves_with_minima = (
    multiplying(step, X_UNIT, X_SCALES)
    for step in (
        step_words,
        step_words_with_minimum,
        step_words_by_halves,
        step_words_by_halves_with_minima,
    )
)


@inlined
def multiply_units_of(
    arguments: int, chunk: int, scratch: int, unpack: Any, ahead: Any, ready: Any, halves: bool,
    multiply: Any, multiply_by_halves: Any, multiply_with_minima: Any, unit_bytes: int,
) -> None:  # fmt: skip
    """PANELS times PANEL outputs of all tokens, a block of units after the other.

    Args:
        arguments, chunk, scratch: of the kernel.
        unpack, ahead: as `unpack_words` and `prefetch_words`.
        ready: makes of a panel of 16-bit weights what is multiplied; of the matrix, the panel, how
            many units it has, and `halves`.
        halves: whether sixteen inputs share a scale.
        multiply, multiply_by_halves, multiply_with_minima: of a tile, each made by `multiplying`.
        unit_bytes: of a unit of activations.
    """
    matrix, depth = load_i64(arguments + GEMM.matrix), load_i64(arguments + GEMM.depth)
    tiles = (load_i64(arguments + GEMM.tokens) + TOKENS - 1) // TOKENS
    minimum = load_i64(matrix + MINIMUM) != 0
    step = PANEL * load_i64(arguments + GEMM.panels)
    begin = chunk * step
    end = min(begin + step, load_i64(matrix + OUTPUTS))
    panel = scratch + SMALL_SCRATCH
    sums = panel + PANEL_BYTES
    for i in range(0, SUMS * tiles * ((end - begin + PANEL - 1) // PANEL), 64):
        store(sums + i, splat(0.0))
    for start in range(0, depth, WORD_BLOCK):
        stop = min(start + WORD_BLOCK, depth)
        place = sums
        for first in range(begin, end, PANEL):
            unpack(arguments, first, start, stop, panel)
            ready(matrix, panel, stop - start, halves)
            if first + PANEL < end:
                ahead(arguments, first + PANEL, start)
            elif stop < depth:
                ahead(arguments, begin, stop)
            else:
                ahead(arguments, end, 0)
            x = load_i64(arguments + GEMM.tiles) + unit_bytes * start * tiles
            for _ in range(tiles):
                if minimum:
                    multiply_with_minima(panel, stop - start, x, place)
                elif halves:
                    multiply_by_halves(panel, stop - start, x, place)
                else:
                    multiply(panel, stop - start, x, place)
                x += WORD_BLOCK * unit_bytes
                place += SUMS
    for first in range(begin, end, PANEL):
        _put(arguments, first, sums)
        sums += SUMS * tiles


@device
def _cross(matrix: int, panel: int, units: int, halves: bool) -> None:  # noqa: ARG001
    if CROSSED:
        for unit in range(units):
            if halves:
                cross_weights_by_halves(panel + W_UNIT * unit)
            else:
                cross_weights(panel + W_UNIT * unit)


@inlined
def multiply_words_of(
    arguments: int, chunk: int, scratch: int,
    unpack: Any, ahead: Any, halves: bool, multiply_with_minima: Any,
) -> None:  # fmt: skip
    """What `gemm_words` does, by functions that unpack and prefetch as its own do.

    Args:
        arguments, chunk, scratch: of the kernel.
        unpack: as `unpack_words`.
        ahead: as `prefetch_words`.
        halves: whether sixteen inputs share a scale.
        multiply_with_minima: what multiplies a matrix that has them.
    """
    multiply_units_of(
        arguments, chunk, scratch, unpack, ahead, _cross, halves, _multiply, _multiply_by_halves,
        multiply_with_minima, X_UNIT,
    )  # fmt: skip


@Kernel(GEMM)
def gemm_words(arguments: int, chunk: int, scratch: int) -> None:
    """PANELS times PANEL outputs of all tokens from integers; `pack_words` gives activations."""
    multiply_words_of(
        arguments, chunk, scratch, unpack_words, prefetch_words, False, multiply_with_minimum
    )


@Kernel(GEMM)
def gemm_words_kquants(arguments: int, chunk: int, scratch: int) -> None:
    """`gemm_words` of int4k and int6k."""
    halves = load_i64(load_i64(arguments + GEMM.matrix) + DTYPE) == INT6K
    multiply_words_of(
        arguments,
        chunk,
        scratch,
        unpack_kquants,
        prefetch_kquant_rows,
        halves,
        multiply_with_minimum,
    )
