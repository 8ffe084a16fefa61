"""Rows of int2k and int3k as float32, and as panels of integers for prefill."""

from __future__ import annotations

from sparity_edge.kernels.decode.unpack import row_place
from sparity_edge.kernels.kept.lows_dots import (
    THREE_SCALES,
    THREES,
    TWO_SCALES,
    TWOS,
    three_factors,
    three_scales,
    two_factors,
)
from sparity_edge.kernels.kept.lows_registers import (
    first_of_half,
    load_first_threes,
    load_second_threes,
    load_twos,
    second_of_half,
    transpose_int2k_scales,
    transpose_int3k_scales,
    transpose_threes,
    transpose_top_threes,
    transpose_twos,
)
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import DTYPE, INT3K, OUTPUTS, PADDED, ROW_BYTES
from sparity_edge.kernels.prefill.blocks import GEMM
from sparity_edge.kernels.simd.conversions import load_high, load_low
from sparity_edge.kernels.simd.float_tiles import PANEL, ROW
from sparity_edge.kernels.simd.memory import load_i64, load_splat, prefetch, store
from sparity_edge.kernels.simd.vectors import mul, sub

BLOCK_UNITS = 16  # of a block; half a block has eight


@device
def unpack_lows(matrix: int, index: int, out: int, scratch: int) -> None:
    """`unpack_row` of int2k and int3k, rounded as GGUF says."""
    row, size = row_place(matrix, index), load_i64(matrix + PADDED)
    threes = load_i64(matrix + DTYPE) == INT3K
    width, behind = (THREES, THREE_SCALES) if threes else (TWOS, TWO_SCALES)
    scales = row + size // 256 * (width // 2)
    for start in range(0, size, 512):
        whole = start + 512 <= size
        if threes:
            _unpack_threes(row, scales, whole, out, scratch)
        else:
            _unpack_twos(row, scales, whole, out, scratch)
        row, scales, out = row + width, scales + behind, out + 4 * 512


@device
def _unpack_twos(numbers: int, scales: int, whole: bool, out: int, scratch: int) -> None:
    """A block of int2k, or half of one: first halves of groups, then second ones."""
    factor, least_factor = two_factors(scales, whole)
    groups, lanes = (16, 0) if whole else (8, 8)
    for half in range(2):
        place = scales + (16 * half if whole else 0)
        store(scratch, mul(factor, load_low(place)))
        store(scratch + 64, mul(least_factor, load_high(place)))
        first = numbers + (64 if whole else 32) * half
        for group in range(groups):
            lane = scratch + 4 * (group + lanes * half)
            values = mul(load_splat(lane), load_twos(first + 4 * group))
            store(out + 128 * group + 64 * half, sub(values, load_splat(lane + 64)))


@device
def _unpack_threes(numbers: int, scales: int, whole: bool, out: int, scratch: int) -> None:
    """A block of int3k, or half of one."""
    factors = three_factors(scales, whole)
    first, second = three_scales(scales, whole)
    store(scratch, mul(factors, first))
    store(scratch + 64, mul(factors, second))
    for group in range(16 if whole else 8):
        lane, place = scratch + 4 * group, numbers + 4 * group
        to = out + 128 * group
        if whole:
            store(to, mul(load_splat(lane), load_first_threes(place)))
            store(to + 64, mul(load_splat(lane + 64), load_second_threes(place)))
        else:
            nibbles = place + 64
            store(to, mul(load_splat(lane), first_of_half(place, nibbles)))
            store(to + 64, mul(load_splat(lane + 32), second_of_half(place + 32, nibbles)))


@device
def word_panel_of_lows(arguments: int, first: int, start: int, stop: int, panel: int) -> None:  # noqa: ARG001
    """Eight units from `start` on of 32 outputs; scales of second halves at W_MINIMA."""
    matrix = load_i64(arguments + GEMM.matrix)
    stride, outputs = load_i64(matrix + ROW_BYTES), load_i64(matrix + OUTPUTS)
    units, block, odd = load_i64(matrix + PADDED) // 32, start // BLOCK_UNITS, start // 8 % 2
    whole = units - block * BLOCK_UNITS >= BLOCK_UNITS
    for half in range(0, min(PANEL, outputs - first), 16):
        row = row_place(matrix, first + half)
        last = min(16, outputs - first - half) - 1
        out = panel + 4 * half
        if load_i64(matrix + DTYPE) != INT3K:
            numbers = row + TWOS * block + 32 * odd
            scales = row + units * (TWOS // 16) + TWO_SCALES * block
            _transpose_twos(numbers, scales, stride, last, out, odd, whole)
            continue
        numbers = row + THREES * block + 32 * odd
        if whole:
            _transpose_block(numbers, stride, last, out)
        else:
            _transpose_half_block(numbers, stride, last, out)
        scales = row + units * (THREES // 16) + THREE_SCALES * block + 12 * odd
        factors = scales - 12 * odd + (24 + 2 * odd if whole else 12)
        transpose_int3k_scales(out, scales, factors, stride, last)


@device
def _transpose_twos(
    numbers: int, scales: int, stride: int, last: int, out: int, odd: int, whole: bool
) -> None:
    """Eight units of int2k."""
    for half in range(2):
        line, to = numbers + (64 if whole else 32) * half, out + 8 * ROW * half
        for vector in range(4):
            transpose_twos(to + 2 * ROW * vector, line, stride, last, 2 * vector)
    factors = scales + (32 + 4 * odd if whole else 16)
    scales += 8 * odd
    transpose_int2k_scales(out, scales, scales + (16 if whole else 8), factors, stride, last)


@device
def _transpose_block(numbers: int, stride: int, last: int, out: int) -> None:
    for vector in range(6):
        line, places = numbers + 64 * (vector // 2), 3 * (vector % 2)
        transpose_threes(out + 2 * ROW * vector, line, stride, last, places)
    for top in range(2):
        upper, to = numbers + 64 * top, out + 2 * ROW * (6 + top)
        transpose_top_threes(to, upper, numbers + 128, stride, last, 6 + top)


@device
def _transpose_half_block(numbers: int, stride: int, last: int, out: int) -> None:
    for half in range(2):
        line, nibbles, to = numbers + 32 * half, numbers + 64, out + 8 * ROW * half
        transpose_threes(to, line, stride, last, 0)
        transpose_threes(to + 2 * ROW, line, stride, last, 3)
        transpose_top_threes(to + 4 * ROW, line, nibbles, stride, last, 3 + 4 * half)
        transpose_threes(to + 6 * ROW, nibbles, stride, last, 4 * half)


@device
def prefetch_lows(arguments: int, first: int, start: int) -> None:
    """Prefetch into L2 what `word_panel_of_lows` will read; both halves of a block at once."""
    if start % BLOCK_UNITS != 0:
        return
    matrix = load_i64(arguments + GEMM.matrix)
    stride, outputs = load_i64(matrix + ROW_BYTES), load_i64(matrix + OUTPUTS)
    width = THREES if load_i64(matrix + DTYPE) == INT3K else TWOS
    row = row_place(matrix, first) + width * (start // BLOCK_UNITS)
    for _ in range(first, min(first + PANEL, outputs)):
        for place in range(row, row + width, 64):
            prefetch(place)
        row += stride
