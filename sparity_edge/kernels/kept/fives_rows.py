"""Rows of five bits (int5, int5k) as float32, and as panels of integers for prefill."""

from __future__ import annotations

from sparity_edge.kernels.decode.dot_arguments import BLOCK_GROUPS
from sparity_edge.kernels.decode.kquant_dots import FOUR_SCALES, int4k_scales
from sparity_edge.kernels.decode.unpack import row_place
from sparity_edge.kernels.kept.fives_dots import FIVES, FIVES_OF_GROUP
from sparity_edge.kernels.kept.fives_registers import (
    WHOLE,
    load_first_half,
    load_second_half,
    transpose_eighth,
    transpose_low,
    transpose_sixth,
)
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import (
    DTYPE,
    INT5K,
    MINIMUM,
    OUTPUTS,
    PADDED,
    ROW_BYTES,
    SCALES_AT,
    ZERO,
)
from sparity_edge.kernels.prefill.blocks import GEMM
from sparity_edge.kernels.simd.conversions import load_f16
from sparity_edge.kernels.simd.float_tiles import PANEL, ROW
from sparity_edge.kernels.simd.int16_tiles import W_MINIMA, W_SCALES
from sparity_edge.kernels.simd.kquants import transpose_int4k_scales
from sparity_edge.kernels.simd.memory import load_i64, load_splat, prefetch, store
from sparity_edge.kernels.simd.transposes import transpose_scales
from sparity_edge.kernels.simd.vectors import fma, mul, splat


@device
def _store_scales(matrix: int, row: int, index: int, scratch: int) -> None:
    """Scales of groups index..index+15 of a row to scratch, and what is added 64 bytes on."""
    groups = load_i64(matrix + PADDED) // 32
    if load_i64(matrix + DTYPE) == INT5K:
        place = row + FIVES_OF_GROUP * groups + index // BLOCK_GROUPS * FOUR_SCALES
        scales, least = int4k_scales(place, groups - index >= BLOCK_GROUPS)
        store(scratch, scales)
        store(scratch + 64, mul(least, splat(-1.0)))
        return
    place = row + load_i64(matrix + SCALES_AT) + 2 * index
    scales = load_f16(place, groups - index)
    store(scratch, scales)
    if load_i64(matrix + MINIMUM) != 0:
        store(scratch + 64, load_f16(place + 2 * groups, groups - index))
    else:
        store(scratch + 64, mul(scales, splat(-float(load_i64(matrix + ZERO)))))


@device
def unpack_fives(matrix: int, index: int, out: int, scratch: int) -> None:
    """`unpack_row` of five bits."""
    row, groups = row_place(matrix, index), load_i64(matrix + PADDED) // 32
    for start in range(0, groups, BLOCK_GROUPS):
        _store_scales(matrix, row, start, scratch)
        width = 4 * min(BLOCK_GROUPS, groups - start)
        for lane in range(0, width, 4):
            place = row + FIVES_OF_GROUP * start + lane
            scale, least = load_splat(scratch + lane), load_splat(scratch + 64 + lane)
            store(out, fma(scale, load_first_half(place, width), least))
            store(out + 64, fma(scale, load_second_half(place, width), least))
            out += 128


@device
def word_panel_of_fives(arguments: int, first: int, start: int, stop: int, panel: int) -> None:  # noqa: ARG001
    """Eight units from `start` on of 32 outputs, of which those from `stop` on hold whatever."""
    matrix = load_i64(arguments + GEMM.matrix)
    stride, outputs = load_i64(matrix + ROW_BYTES), load_i64(matrix + OUTPUTS)
    for half in range(0, min(PANEL, outputs - first), 16):
        row = row_place(matrix, first + half)
        last = min(16, outputs - first - half) - 1
        _transpose_numbers(matrix, row, stride, last, start, panel + 4 * half)
        _transpose_scales(matrix, row, stride, last, start, panel + 4 * half)


@device
def _transpose_numbers(matrix: int, row: int, stride: int, last: int, unit: int, out: int) -> None:
    whole = unit // BLOCK_GROUPS * BLOCK_GROUPS
    width = 4 * min(BLOCK_GROUPS, load_i64(matrix + PADDED) // 32 - whole)
    place, zero = row + FIVES_OF_GROUP * whole + 4 * (unit - whole), load_i64(matrix + ZERO)
    for line in range(WHOLE):
        transpose_low(out + 2 * ROW * line, stride, last, zero, place + width * line)
    for pair in range(2):
        upper = place + 2 * width * pair
        transpose_sixth(out + 2 * ROW * (WHOLE + pair), stride, last, zero, upper, upper + width)
    transpose_eighth(
        out + 14 * ROW, stride, last, zero, place + 4 * width, place + width, place + 3 * width
    )


@device
def _transpose_scales(matrix: int, row: int, stride: int, last: int, unit: int, out: int) -> None:
    groups = load_i64(matrix + PADDED) // 32
    if load_i64(matrix + DTYPE) == INT5K:
        odd, whole = unit // 8 % 2, groups - unit // BLOCK_GROUPS * BLOCK_GROUPS >= BLOCK_GROUPS
        scales = row + FIVES_OF_GROUP * groups + unit // BLOCK_GROUPS * FOUR_SCALES
        factors = scales + (24 + 4 * odd if whole else 12)
        transpose_int4k_scales(out, scales + 12 * odd, factors, stride, last)
        return
    scales = row + load_i64(matrix + SCALES_AT) + 2 * unit
    transpose_scales(out + W_SCALES, scales, stride, last)
    if load_i64(matrix + MINIMUM) != 0:
        transpose_scales(out + W_MINIMA, scales + 2 * groups, stride, last)


@device
def prefetch_fives(arguments: int, first: int, start: int) -> None:
    """Prefetch into L2 what `word_panel_of_fives` will read; both halves of a block at once."""
    if start % BLOCK_GROUPS != 0:
        return
    matrix = load_i64(arguments + GEMM.matrix)
    stride, outputs = load_i64(matrix + ROW_BYTES), load_i64(matrix + OUTPUTS)
    row = row_place(matrix, first) + FIVES_OF_GROUP * start
    for _ in range(first, min(first + PANEL, outputs)):
        for place in range(row, row + FIVES, 64):
            prefetch(place)
        row += stride
