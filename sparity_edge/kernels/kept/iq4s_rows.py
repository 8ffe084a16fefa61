"""Rows of iq4 and iq4k as float32, and as panels of integers for prefill."""

from __future__ import annotations

from sparity_edge.kernels.decode.dot_arguments import BLOCK_GROUPS, INT4_BLOCK
from sparity_edge.kernels.decode.unpack import row_place
from sparity_edge.kernels.kept.iq4s_dots import IQ4_GROUP, IQ4K_SCALES
from sparity_edge.kernels.kept.iq4s_registers import (
    LINES,
    iq4k_scales,
    last_iq4k_scales,
    load_first_half,
    load_second_half,
    transpose_high,
    transpose_iq4k_scales,
    transpose_low,
)
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import DTYPE, IQ4K, OUTPUTS, PADDED, ROW_BYTES, SCALES_AT
from sparity_edge.kernels.prefill.blocks import GEMM
from sparity_edge.kernels.simd.conversions import load_f16
from sparity_edge.kernels.simd.float_tiles import PANEL, ROW
from sparity_edge.kernels.simd.int16_tiles import W_SCALES
from sparity_edge.kernels.simd.memory import load_i64, load_splat, prefetch, store
from sparity_edge.kernels.simd.transposes import transpose_scales
from sparity_edge.kernels.simd.vectors import mul


@device
def _store_scales(matrix: int, row: int, index: int, scratch: int) -> None:
    """Scales of groups index..index+15 of a row to scratch."""
    groups = load_i64(matrix + PADDED) // 32
    if load_i64(matrix + DTYPE) != IQ4K:
        place = row + load_i64(matrix + SCALES_AT) + 2 * index
        store(scratch, load_f16(place, groups - index))
        return
    place = row + IQ4_GROUP * groups + index // BLOCK_GROUPS * IQ4K_SCALES
    if groups - index >= BLOCK_GROUPS:
        store(scratch, iq4k_scales(place))
    else:
        store(scratch, last_iq4k_scales(place))


@device
def unpack_iq4s(matrix: int, index: int, out: int, scratch: int) -> None:
    """`unpack_row` of iq4 and iq4k."""
    row, groups = row_place(matrix, index), load_i64(matrix + PADDED) // 32
    for start in range(0, groups, BLOCK_GROUPS):
        _store_scales(matrix, row, start, scratch)
        width = 4 * min(BLOCK_GROUPS, groups - start)
        for lane in range(0, width, 4):
            place, scale = row + IQ4_GROUP * start + lane, load_splat(scratch + lane)
            store(out, mul(scale, load_first_half(place, width)))
            store(out + 64, mul(scale, load_second_half(place, width)))
            out += 128


@device
def word_panel_of_iq4s(arguments: int, first: int, start: int, stop: int, panel: int) -> None:  # noqa: ARG001
    """Eight units from `start` on of 32 outputs, of which those from `stop` on hold whatever."""
    matrix = load_i64(arguments + GEMM.matrix)
    stride, outputs = load_i64(matrix + ROW_BYTES), load_i64(matrix + OUTPUTS)
    groups, whole = load_i64(matrix + PADDED) // 32, start // BLOCK_GROUPS * BLOCK_GROUPS
    width = 4 * min(BLOCK_GROUPS, groups - whole)
    for half in range(0, min(PANEL, outputs - first), 16):
        row = row_place(matrix, first + half)
        last = min(16, outputs - first - half) - 1
        place, out = row + IQ4_GROUP * whole + 4 * (start - whole), panel + 4 * half
        for line in range(LINES):
            transpose_low(out + 2 * ROW * line, place + width * line, stride, last)
            transpose_high(out + 2 * ROW * (LINES + line), place + width * line, stride, last)
        _transpose_scales(matrix, row, stride, last, start, out)


@device
def _transpose_scales(matrix: int, row: int, stride: int, last: int, unit: int, out: int) -> None:
    groups = load_i64(matrix + PADDED) // 32
    if load_i64(matrix + DTYPE) != IQ4K:
        scales = row + load_i64(matrix + SCALES_AT) + 2 * unit
        transpose_scales(out + W_SCALES, scales, stride, last)
        return
    odd, whole = unit // 8 % 2, groups - unit // BLOCK_GROUPS * BLOCK_GROUPS >= BLOCK_GROUPS
    scales = row + IQ4_GROUP * groups + unit // BLOCK_GROUPS * IQ4K_SCALES
    factors = scales + (12 + 2 * odd if whole else 6)
    transpose_iq4k_scales(out, scales + 6 * odd, factors, stride, last)


@device
def prefetch_iq4s(arguments: int, first: int, start: int) -> None:
    """Prefetch into L2 what `word_panel_of_iq4s` will read; both halves of a block at once."""
    if start % BLOCK_GROUPS != 0:
        return
    matrix = load_i64(arguments + GEMM.matrix)
    stride, outputs = load_i64(matrix + ROW_BYTES), load_i64(matrix + OUTPUTS)
    row = row_place(matrix, first) + IQ4_GROUP * start
    for _ in range(first, min(first + PANEL, outputs)):
        for place in range(row, row + INT4_BLOCK, 64):
            prefetch(place)
        row += stride
