"""Panels of K-quants (int4k, int6k) for prefill: 32 outputs by 256 inputs, as `panels` has them.

A row of 32 bytes of a vector holds four inputs of each of eight groups (`simd/kquants.py` draws
it), so that one transposition of sixteen rows gives two pairs of inputs for eight units.
"""

from __future__ import annotations

from sparity_edge.kernels.decode.kquant_columns import interleave_sixteen, least_of, scales_of
from sparity_edge.kernels.decode.kquant_dots import FOUR_SCALES, FOURS, SIX_SCALES, SIXES
from sparity_edge.kernels.decode.unpack import row_place
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import (
    DATA,
    DTYPE,
    GROUP,
    HEADER_BYTES,
    INT4K,
    OUTPUTS,
    PADDED,
    PANEL_BYTES,
    ROW_BYTES,
)
from sparity_edge.kernels.simd.float_tiles import PANEL, ROW
from sparity_edge.kernels.simd.int16_tiles import UNIT, W_MINIMA, W_SCALES, W_UNIT
from sparity_edge.kernels.simd.kquants import (
    transpose_int4k_scales,
    transpose_int6k_scales,
    transpose_sixes,
    transpose_top_sixes,
)
from sparity_edge.kernels.simd.memory import load_i64, prefetch, store
from sparity_edge.kernels.simd.transposes import transpose_kquant_nibbles
from sparity_edge.kernels.simd.vectors import splat, sub


@device
def word_panel_of_kquants(matrix: int, first: int, block: int, panel: int) -> None:
    """256 inputs of 32 outputs, eight units as `panels` has them.

    int6k has two rows of scales for a unit, for 16 inputs each; the second stands at W_MINIMA.

    Args:
        matrix: the descriptor.
        first: the first output, a multiple of 32.
        block: which 256 inputs.
        panel: where the units go.
    """
    stride, outputs = load_i64(matrix + ROW_BYTES), load_i64(matrix + OUTPUTS)
    whole = block // 2 < load_i64(matrix + PADDED) // 512
    for half in range(0, min(PANEL, outputs - first), 16):
        row = row_place(matrix, first + half)
        last = min(16, outputs - first - half) - 1
        out = panel + 4 * half
        if load_i64(matrix + DTYPE) == INT4K:
            _transpose_int4k(matrix, row, stride, last, block, whole, out)
        else:
            _transpose_int6k(matrix, row, stride, last, block, whole, out)


@device
def _transpose_int4k(
    matrix: int, row: int, stride: int, last: int, block: int, whole: bool, out: int
) -> None:
    odd = block % 2
    numbers = row + block // 2 * FOURS + 32 * odd
    scales = row + load_i64(matrix + PADDED) // 2 + block // 2 * FOUR_SCALES
    factors = scales + (24 + 4 * odd if whole else 12)
    transpose_int4k_scales(out, scales + 12 * odd, factors, stride, last)
    for k in range(4):
        place = 64 * k if whole else k % 2 * 64 + k // 2 * 32
        transpose_kquant_nibbles(out + 4 * ROW * k, numbers + place, stride, last, 0)


@device
def _transpose_int6k(
    matrix: int, row: int, stride: int, last: int, block: int, whole: bool, out: int
) -> None:
    odd = block % 2
    numbers = row + block // 2 * SIXES + 32 * odd
    scales = row + load_i64(matrix + PADDED) // 4 * 3 + block // 2 * SIX_SCALES + 8 * odd
    factors = scales - 8 * odd + (32 + 2 * odd if whole else 16)
    transpose_int6k_scales(out, scales, scales + (16 if whole else 8), factors, stride, last)
    for half in range(2):
        place = numbers + half * (SIXES // 2 if whole else 32)
        to = out + 8 * ROW * half
        for index in range(3):
            transpose_sixes(to + 2 * ROW * index, place, stride, last, index)
        transpose_top_sixes(to + 6 * ROW, place, stride, last)


@device
def prefetch_kquants(matrix: int, first: int, block: int) -> None:
    """Prefetch into L2 what `word_panel_of_kquants` will read; both 256s of a block at once."""
    if block % 2 != 0:
        return
    stride, outputs = load_i64(matrix + ROW_BYTES), load_i64(matrix + OUTPUTS)
    width = FOURS if load_i64(matrix + DTYPE) == INT4K else SIXES
    for half in range(first, min(first + PANEL, outputs), 16):
        row = row_place(matrix, half) + block // 2 * width
        for _ in range(half, min(half + 16, outputs)):
            for place in range(row, row + width, 64):
                prefetch(place)
            row += stride


@device
def word_panel_of_kquant_columns(
    matrix: int, first: int, start: int, stop: int, panel: int
) -> None:
    """Units start..stop-1 of an input-major matrix of K-quants."""
    stride, group = load_i64(matrix + ROW_BYTES), load_i64(matrix + GROUP)
    for unit in range(start, stop):
        out, index = panel + (unit - start) * W_UNIT, UNIT * unit // group
        place = load_i64(matrix + DATA) + index * load_i64(matrix + PANEL_BYTES)
        for column in range(0, PANEL, 16):
            to = out + 4 * column
            store(to + W_SCALES, scales_of(matrix, place, first + column))
            if group == UNIT:
                least = least_of(matrix, place, first + column)
                store(to + W_MINIMA, sub(splat(0.0), least))
            else:
                other = place + load_i64(matrix + PANEL_BYTES)
                store(to + W_MINIMA, scales_of(matrix, other, first + column))
            for pair in range(UNIT // 2):
                row = place + load_i64(matrix + HEADER_BYTES) + 2 * pair * stride
                if 2 * pair >= group:  # in the panel of the other sixteen inputs
                    row += load_i64(matrix + PANEL_BYTES) - group * stride
                interleave_sixteen(matrix, row, row + stride, first + column, to + ROW * pair)
