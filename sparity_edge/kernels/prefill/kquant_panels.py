"""Rows of superblocks (int4k, int6k) as floats, and panels of them for prompts: see `panels`.

Where things stand is said in `superblocks`. A row of a vector holds four inputs of each of eight
groups, so that one transposition of sixteen rows gives two pairs of inputs for eight units.
"""

from __future__ import annotations

from sparity_edge.kernels.decode.kquant_dots import FOUR_SCALES, FOURS, SIX_SCALES, SIXES
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import DATA, DTYPE, INT4K, OUTPUTS, PADDED, ROW_BYTES
from sparity_edge.kernels.simd.conversions import load_i8
from sparity_edge.kernels.simd.float_tiles import PANEL, ROW
from sparity_edge.kernels.simd.kquants import (
    half_least_factor,
    half_scale_factor,
    half_six_factor,
    least_factors,
    load_fours,
    load_half_minima,
    load_half_scales,
    load_minima,
    load_scales,
    load_sixes,
    scale_factors,
    six_factors,
    transpose_int4k_scales,
    transpose_int6k_scales,
    transpose_sixes,
    transpose_top_sixes,
)
from sparity_edge.kernels.simd.memory import load_i64, load_splat, store
from sparity_edge.kernels.simd.prefetch import prefetch
from sparity_edge.kernels.simd.transposes import transpose_kquant_nibbles
from sparity_edge.kernels.simd.vectors import mul, splat, sub

# --- rows as floats -------------------------------------------------------------------------


@device
def unpack_superblocks(matrix: int, row: int, out: int, scratch: int) -> None:
    """An int4k or int6k row as PADDED float32, rounded as GGUF says; 128 bytes of scratch."""
    size = load_i64(matrix + PADDED)
    four_bits = load_i64(matrix + DTYPE) == INT4K
    scales = row + (size // 2 if four_bits else size // 4 * 3)
    for start in range(0, size, 512):
        whole = start + 512 <= size
        if four_bits:
            _unpack_int4k(row, scales, whole, out, scratch)
            row, scales = row + FOURS, scales + FOUR_SCALES
        else:
            _unpack_int6k(row, scales, whole, out, scratch)
            row, scales = row + SIXES, scales + SIX_SCALES
        out += 4 * 512


@device
def _unpack_int4k(numbers: int, scales: int, whole: bool, out: int, scratch: int) -> None:
    """A block, or half of one, in which the second half of a group stands elsewhere."""
    if whole:
        store(scratch, mul(load_scales(scales), scale_factors(scales + 24)))
        store(scratch + 64, mul(load_minima(scales), least_factors(scales + 24)))
    else:
        store(scratch, mul(load_half_scales(scales), half_scale_factor(scales + 12)))
        store(scratch + 64, mul(load_half_minima(scales), half_least_factor(scales + 12)))
    groups, second = (16, 128) if whole else (8, 32)
    for lane in range(0, 4 * groups, 4):
        scale, least = load_splat(scratch + lane), load_splat(scratch + 64 + lane)
        store(out, sub(mul(scale, load_fours(numbers + lane)), least))
        store(out + 64, sub(mul(scale, load_fours(numbers + second + lane)), least))
        out += 128


@device
def _unpack_int6k(numbers: int, scales: int, whole: bool, out: int, scratch: int) -> None:
    if whole:
        store(scratch, mul(load_i8(scales), six_factors(scales + 32)))
        store(scratch + 64, mul(load_i8(scales + 16), six_factors(scales + 32)))
    else:
        store(scratch, mul(load_i8(scales), half_six_factor(scales + 16)))
    groups, second, other = (16, SIXES // 2, 64) if whole else (8, 32, 32)
    for lane in range(0, 4 * groups, 4):
        for place, scale in ((numbers, scratch), (numbers + second, scratch + other)):
            values = sub(load_sixes(place + lane), splat(32.0))
            store(out, mul(load_splat(scale + lane), values))
            out += 64


# --- panels for prompts ---------------------------------------------------------------------


@device
def word_panel_of_superblocks(matrix: int, first: int, block: int, panel: int) -> None:
    """Superblock `block` of 32 outputs, eight units as `panels` has them.

    int6k has two rows of scales for a unit, for 16 inputs each; the second stands at W_MINIMA.
    """
    stride, outputs = load_i64(matrix + ROW_BYTES), load_i64(matrix + OUTPUTS)
    whole = block // 2 < load_i64(matrix + PADDED) // 512
    for half in range(0, min(PANEL, outputs - first), 16):
        row = load_i64(matrix + DATA) + (first + half) * stride
        last = min(16, outputs - first - half) - 1
        out = panel + 4 * half
        if load_i64(matrix + DTYPE) == INT4K:
            _turn_int4k(matrix, row, stride, last, block, whole, out)
        else:
            _turn_int6k(matrix, row, stride, last, block, whole, out)


@device
def _turn_int4k(
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
def _turn_int6k(
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
def expect_superblocks(matrix: int, first: int, block: int) -> None:
    """Ask for what `word_panel_of_superblocks` will read; a block of two is asked for at once."""
    if block % 2 != 0:
        return
    stride, outputs = load_i64(matrix + ROW_BYTES), load_i64(matrix + OUTPUTS)
    width = FOURS if load_i64(matrix + DTYPE) == INT4K else SIXES
    row = load_i64(matrix + DATA) + first * stride + block // 2 * width
    for _ in range(first, min(first + PANEL, outputs)):
        for place in range(row, row + width, 64):
            prefetch(place)
        row += stride
