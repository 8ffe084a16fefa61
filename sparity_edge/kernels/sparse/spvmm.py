"""Sparse vector times matrix: W x as AXPY over the rows of an input-major W that are active.

A chunk is a panel of columns, narrow enough that its sums stay in L1 and wide enough that rows stay
long, of a part of the active list; parts are added in their order. Which channels are active is
decided elsewhere; a full list makes this the dense product.
"""

from __future__ import annotations

from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import (
    DATA,
    DTYPE,
    GROUP,
    HEADER_BYTES,
    INPUTS,
    INT4,
    MINIMUM,
    PADDED,
    PANEL_BYTES,
    ROW_BYTES,
)
from sparity_edge.kernels.simd.memory import load, load_f32, load_i64, store, store_f32, store_i64
from sparity_edge.kernels.simd.vectors import add, splat
from sparity_edge.kernels.sparse.active_rows import (
    BLOCK_BYTES,
    CHANNELS,
    FIRST_FREE,
    HEADER,
    ROWS,
    SCALE,
    WHOLE,
    block_shift,
    boundary,
    channel,
    collect,
    digit_bytes,
    prefetch_bytes,
    quantize_values,
    unsound,
)
from sparity_edge.kernels.sparse.axpy_blocks import (
    add_block,
    bytes_ahead,
    bytes_of,
    clear,
    order_sums,
    scale_bytes,
)
from sparity_edge.kernels.words import Words

# DIGITS_AT is where digits stand in scratch, BLOCKS_AFTER how far on blocks do (`table`).
SPVMM = Words(
    "matrix x active parts panels panel_columns part_sums part_bytes digits_at blocks_after"
)
ADD_PARTS = Words("sums stride count size bias accumulate out")
COLUMNS = 128  # in a chunk of `add_parts`
MOST_COLUMNS = 4096  # of a panel: 16 KB of sums in L1
TABLES = FIRST_FREE  # in scratch, of a part: rows, then digits and blocks


def table(inputs: int, group: int) -> tuple[int, int, int]:
    """Places in scratch for a matrix of `inputs` channels, `group` of which share scales.

    Returns:
        Where digits stand, how far on the entries of blocks do, and the bytes in all.
    """
    blocks = -(-inputs // CHANNELS)
    digits = TABLES + 8 * CHANNELS * blocks
    digit_bytes = 4 * CHANNELS * blocks + 256
    entries = (2 * blocks if group == 16 else blocks) + 1
    return digits, digit_bytes, digits + digit_bytes + BLOCK_BYTES * entries


@device
def _group_shift(matrix: int) -> int:
    """The logarithm of the channels in a panel of rows; without scales all are one panel."""
    group = load_i64(matrix + GROUP)
    if group == 0:
        return 40
    if group == 16:
        return 4
    return 5 if group == 32 else 6 if group == 64 else 7


@device
def _prefetch_first(
    matrix: int, scales: int, columns: int, rows: int, count: int, ahead: int
) -> None:
    """Prefetch the scales of the first block and the beginnings of its rows into L2."""
    prefetch_bytes(scales, scale_bytes(matrix, columns))
    if load_i64(matrix + DTYPE) == INT4 and load_i64(matrix + MINIMUM) != 0:
        minima = scales + 2 * load_i64(matrix + PADDED)
        prefetch_bytes(minima, 2 * columns)
    for place in range(rows, rows + 8 * count, 8):
        prefetch_bytes(load_i64(place), ahead)


@device
def _take_values(x: int, active: int, start: int, end: int, values: int) -> None:
    """The activations of a block, padded with zeros."""
    for place in range(0, 128, 64):
        store(values + place, splat(0.0))
    for index in range(start, end):
        store_f32(values + 4 * (index - start), load_f32(x + 4 * channel(active, index)))


@device
def prepare(
    arguments: int, start: int, stop: int, rows: int, digits: int, blocks: int, first: int,
    columns: int, ahead: int,
) -> int:  # fmt: skip
    """Write the tables of the channels at start..stop-1 of the list (see `active_rows`).

    Prefetches what is read first, since the tables of a whole part take a microsecond. An entry
    without rows follows the last block.

    Args:
        arguments: the argument block.
        start, stop: positions on the list, at borders of blocks.
        rows: where addresses of rows go.
        digits: where activations go.
        blocks: where entries of blocks go.
        first: the column where rows begin.
        columns: of the panel.
        ahead: the prefetch distance in a row, in bytes.

    Returns:
        How many blocks there are.
    """
    matrix, active = load_i64(arguments + SPVMM.matrix), load_i64(arguments + SPVMM.active)
    row_bytes, offset = load_i64(matrix + ROW_BYTES), bytes_of(matrix, first)
    shift, step, first_block = _group_shift(matrix), digit_bytes(matrix), blocks
    block = block_shift(load_i64(matrix + GROUP))
    while start < stop:
        panel = channel(active, start) >> shift
        header = load_i64(matrix + DATA) + panel * load_i64(matrix + PANEL_BYTES)
        base = header + load_i64(matrix + HEADER_BYTES) - (panel << shift) * row_bytes + offset
        end = collect(active, start, stop, block, base, row_bytes, rows)
        if blocks == first_block:
            scales = header + scale_bytes(matrix, first)
            _prefetch_first(matrix, scales, columns, rows, end - start, ahead)
        values = digits if step == 16 else digits + 64
        _take_values(load_i64(arguments + SPVMM.x), active, start, end, values)
        count = (end - start + 3) // 4 * 4
        store_i64(blocks + HEADER, header)
        store_i64(blocks + BLOCK_BYTES + HEADER, header)
        store_i64(blocks + ROWS, count)
        if step == 8:
            scale, whole = quantize_values(values, digits)
            store_f32(blocks + SCALE, scale)
            store_f32(blocks + WHOLE, whole)
        rows, digits, blocks = rows + 8 * count, digits + step * count // 4, blocks + BLOCK_BYTES
        start = end
    store_i64(blocks + ROWS, 0)
    return (blocks - first_block) // BLOCK_BYTES


@Kernel(SPVMM)
def spvmm(arguments: int, chunk: int, scratch: int) -> None:
    """Chunk `chunk` of PARTS * PANELS of the sum over active channels of X, to its PART_SUMS."""
    matrix, active = load_i64(arguments + SPVMM.matrix), load_i64(arguments + SPVMM.active)
    if CHECKED and unsound(active, load_i64(matrix + INPUTS)):
        return
    parts, panels = load_i64(arguments + SPVMM.parts), load_i64(arguments + SPVMM.panels)
    part = chunk // panels
    columns = load_i64(arguments + SPVMM.panel_columns)
    first = (chunk - part * panels) * columns
    columns = min(columns, load_i64(matrix + PADDED) - first)
    sums = load_i64(arguments + SPVMM.part_sums) + part * load_i64(arguments + SPVMM.part_bytes)
    sums += 4 * first
    clear(sums, columns)
    start, stop = boundary(active, part, parts), boundary(active, part + 1, parts)
    if start >= stop:
        return
    rows, digits = scratch + TABLES, scratch + load_i64(arguments + SPVMM.digits_at)
    block = digits + load_i64(arguments + SPVMM.blocks_after)
    nbytes, step = bytes_of(matrix, columns), digit_bytes(matrix)
    ahead = bytes_ahead(active, load_i64(matrix + INPUTS), nbytes)
    blocks = prepare(arguments, start, stop, rows, digits, block, first, columns, ahead)
    for _ in range(blocks):
        count = load_i64(block + ROWS)
        following = rows + 8 * count
        add_block(matrix, block, rows, following, ahead, digits, first, nbytes, sums)
        rows, digits, block = following, digits + step * count // 4, block + BLOCK_BYTES
    order_sums(matrix, sums, columns)


@Kernel(ADD_PARTS)
def add_parts(arguments: int, chunk: int, scratch: int) -> None:
    """COLUMNS sums over the COUNT parts, plus BIAS if there is one, plus OUT if ACCUMULATE."""
    first, size = chunk * COLUMNS, load_i64(arguments + ADD_PARTS.size)
    sums, out = load_i64(arguments + ADD_PARTS.sums), load_i64(arguments + ADD_PARTS.out)
    bias = load_i64(arguments + ADD_PARTS.bias)
    accumulate = load_i64(arguments + ADD_PARTS.accumulate) != 0
    for c in range(first, min(first + COLUMNS, size), 16):
        value, part = splat(0.0), sums + 4 * c
        for _ in range(load_i64(arguments + ADD_PARTS.count)):
            value = add(value, load(part))
            part += load_i64(arguments + ADD_PARTS.stride)
        if c + 16 <= size:
            if bias != 0:
                value = add(value, load(bias + 4 * c))
            if accumulate:
                value = add(value, load(out + 4 * c))
            store(out + 4 * c, value)
            continue
        store(scratch, value)
        for i in range(c, size):  # nothing may be written past the last
            result = load_f32(scratch + 4 * (i - c))
            if bias != 0:
                result += load_f32(bias + 4 * i)
            if accumulate:
                result += load_f32(out + 4 * i)
            store_f32(out + 4 * i, result)
