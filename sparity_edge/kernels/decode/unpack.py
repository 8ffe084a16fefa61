"""Rows of a packed matrix as float32: for embeddings, and for the panels of a matrix product."""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.checks import CHECKED, TOKEN
from sparity_edge.kernels.decode.dot_arguments import whole_groups
from sparity_edge.kernels.decode.kquant_columns import unpack_sixteen_of_kquants
from sparity_edge.kernels.decode.kquant_dots import (
    FOUR_SCALES,
    FOURS,
    SIX_SCALES,
    SIXES,
    int4k_scales,
    int6k_factors,
)
from sparity_edge.kernels.kernel import Kernel, device, inlined
from sparity_edge.kernels.matrix import (
    BF16,
    DATA,
    DTYPE,
    GROUP,
    GROUPS,
    HEADER_BYTES,
    INT4,
    INT4K,
    INT8,
    MINIMUM,
    OUTPUTS,
    PADDED,
    PANEL_BYTES,
    PANEL_ROWS,
    ROW_BYTES,
    SCALES_AT,
)
from sparity_edge.kernels.simd.block_dots import high_lane_nibbles, lane_bytes, low_lane_nibbles
from sparity_edge.kernels.simd.bounds import outside
from sparity_edge.kernels.simd.byte_dots import load_high_fours, load_low_fours
from sparity_edge.kernels.simd.conversions import load_bf16, load_f16, load_high, load_i8, load_low
from sparity_edge.kernels.simd.kquants import load_fours, load_sixes
from sparity_edge.kernels.simd.memory import load, load_i64, load_splat, store
from sparity_edge.kernels.simd.vectors import fma, mul, splat, sub
from sparity_edge.kernels.words import Words


@device
def _load_int4_scales(matrix: int, header: int, block: int, groups: int, scratch: int) -> None:
    """Sixteen scales of an output-major int4 row to scratch, and their minima 64 bytes on.

    Without minimum q counts from -8, which is a minimum of -8 scales.
    """
    scales = load_f16(header + 2 * block, groups - block)
    store(scratch, scales)
    if load_i64(matrix + MINIMUM) != 0:
        store(scratch + 64, load_f16(header + 2 * (groups + block), groups - block))
    else:
        store(scratch + 64, mul(scales, splat(-8.0)))


@device
def _unpack_int8(matrix: int, row: int, out: int, scratch: int) -> None:
    group, groups = load_i64(matrix + GROUP), load_i64(matrix + GROUPS)
    header, ratio = row + load_i64(matrix + SCALES_AT), group // 32
    row, in_blocks = row + load_i64(matrix + HEADER_BYTES), whole_groups(matrix)
    for block in range(0, groups, 16):
        store(scratch, load_f16(header + 2 * block, groups - block))
        for index in range(ratio * block, ratio * min(groups, block + 16)):
            scale = load_splat(scratch + 4 * (index // ratio - block))
            if index < in_blocks:
                place = row + index // 16 * 512 + index % 16 * 4
                first, second = lane_bytes(place), lane_bytes(place + 256)
            else:
                first, second = load_i8(row + 32 * index), load_i8(row + 32 * index + 16)
            store(out, mul(scale, first))
            store(out + 64, mul(scale, second))
            out += 128


@device
def _unpack_int4(matrix: int, row: int, out: int, scratch: int) -> None:
    ratio = load_i64(matrix + GROUP) // 32
    groups = load_i64(matrix + GROUPS)
    in_wide_units = load_i64(matrix + PADDED) // 128 * 4
    header, in_blocks = row + load_i64(matrix + SCALES_AT), whole_groups(matrix)
    row += load_i64(matrix + HEADER_BYTES)
    for block in range(0, groups, 16):
        _load_int4_scales(matrix, header, block, groups, scratch)
        for index in range(ratio * block, ratio * min(groups, block + 16)):
            place = scratch + 4 * (index // ratio - block)
            scale, least = load_splat(place), load_splat(place + 64)
            four = row + index // 4 * 64 + index % 2 * 4
            if index < in_blocks:
                place = row + index // 16 * 256 + index % 16 * 4
                first, second = low_lane_nibbles(place), high_lane_nibbles(place)
            elif index >= in_wide_units:
                first, second = load_low_fours(four), load_high_fours(four)
            elif index % 4 < 2:
                first, second = load_low_fours(four), load_low_fours(four + 32)
            else:
                first, second = load_high_fours(four), load_high_fours(four + 32)
            store(out, fma(scale, first, least))
            store(out + 64, fma(scale, second, least))
            out += 128


@device
def _unpack_kquants(matrix: int, row: int, out: int, scratch: int) -> None:
    """A K-quant row as PADDED float32, rounded as GGUF says; 128 bytes of scratch."""
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
    """A block of int4k, or half of one: in both the halves of a group stand apart."""
    of_lanes, minima = int4k_scales(scales, whole)
    store(scratch, of_lanes)
    store(scratch + 64, minima)
    groups, second = (16, 128) if whole else (8, 32)
    for lane in range(0, 4 * groups, 4):
        scale, least = load_splat(scratch + lane), load_splat(scratch + 64 + lane)
        store(out, sub(mul(scale, load_fours(numbers + lane)), least))
        store(out + 64, sub(mul(scale, load_fours(numbers + second + lane)), least))
        out += 128


@device
def _unpack_int6k(numbers: int, scales: int, whole: bool, out: int, scratch: int) -> None:
    """A block of int6k, or half of one."""
    factors = int6k_factors(scales, whole)
    store(scratch, mul(load_i8(scales), factors))
    if whole:
        store(scratch + 64, mul(load_i8(scales + 16), factors))
    groups, second, other = (16, SIXES // 2, 64) if whole else (8, 32, 32)
    for lane in range(0, 4 * groups, 4):
        for place, scale in ((numbers, scratch), (numbers + second, scratch + other)):
            values = sub(load_sixes(place + lane), splat(32.0))
            store(out, mul(load_splat(scale + lane), values))
            out += 64


@device
def row_place(matrix: int, index: int) -> int:
    """The address of row `index` of an output-major matrix."""
    panel = index // load_i64(matrix + PANEL_ROWS)
    inside = index - panel * load_i64(matrix + PANEL_ROWS)
    place = load_i64(matrix + DATA) + panel * load_i64(matrix + PANEL_BYTES)
    return place + inside * load_i64(matrix + ROW_BYTES)


@device
def unpack_row(matrix: int, index: int, out: int, scratch: int) -> None:
    """Row `index` of an output-major matrix as float32.

    Args:
        matrix: the descriptor.
        index: of the row.
        out: where PADDED float32 go.
        scratch: 128 bytes.
    """
    row = row_place(matrix, index)
    dtype = load_i64(matrix + DTYPE)
    if dtype == INT8:
        _unpack_int8(matrix, row, out, scratch)
    elif dtype == INT4:
        _unpack_int4(matrix, row, out, scratch)
    elif dtype >= INT4K:
        _unpack_kquants(matrix, row, out, scratch)
    elif dtype == BF16:
        for i in range(0, load_i64(matrix + PADDED), 16):
            store(out + 4 * i, load_bf16(row + 2 * i))
    else:
        for i in range(0, load_i64(matrix + PADDED), 16):
            store(out + 4 * i, load(row + 4 * i))


@device
def unpack_sixteen(matrix: int, panel: int, row: int, column: int) -> Any:
    """Columns column..column+15 of one row of an input-major matrix, as a vector of float32.

    Args:
        matrix: the descriptor.
        panel: the address of the panel, where its scales stand.
        row: the address of the row.
        column: a multiple of 16.
    """
    dtype, header = load_i64(matrix + DTYPE), panel + 2 * column
    if dtype == INT8:
        return mul(load_f16(header, 16), load_i8(row + column))
    if dtype == INT4:
        # Thirty-two columns share sixteen bytes: the low nibbles come first.
        place = row + column // 32 * 16
        numbers = load_low(place) if column % 32 == 0 else load_high(place)
        scale = load_f16(header, 16)
        if load_i64(matrix + MINIMUM) != 0:
            return fma(scale, numbers, load_f16(header + 2 * load_i64(matrix + PADDED), 16))
        return fma(scale, numbers, mul(scale, splat(-8.0)))
    if dtype >= INT4K:
        return unpack_sixteen_of_kquants(matrix, panel, row, column)
    if dtype == BF16:
        return load_bf16(row + 2 * column)
    return load(row + 4 * column)


EMBED = Words("table ids out out_stride")


@inlined
def embed_row(arguments: int, chunk: int, scratch: int, unpack: Any) -> None:
    """What `embed` does, by a function that unpacks as `unpack_row` does."""
    token = load_i64(load_i64(arguments + EMBED.ids) + 8 * chunk)
    if CHECKED and outside(TOKEN, token, load_i64(load_i64(arguments + EMBED.table) + OUTPUTS)):
        return
    out = load_i64(arguments + EMBED.out) + chunk * load_i64(arguments + EMBED.out_stride)
    unpack(load_i64(arguments + EMBED.table), token, out, scratch)


@Kernel(EMBED)
def embed(arguments: int, chunk: int, scratch: int) -> None:
    """Row IDS[chunk] of an output-major TABLE to row `chunk` of OUT."""
    embed_row(arguments, chunk, scratch, unpack_row)
