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
    fours,
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
    matrix: int, block: int, columns: int, first: int, rows: int, ahead: int
) -> None:
    """Prefetch the scales of the first block and the beginnings of its rows into L2."""
    scales = load_i64(block + HEADER) + scale_bytes(matrix, first)
    prefetch_bytes(scales, scale_bytes(matrix, columns))
    if load_i64(matrix + DTYPE) == INT4 and load_i64(matrix + MINIMUM) != 0:
        minima = scales + 2 * load_i64(matrix + PADDED)
        prefetch_bytes(minima, 2 * columns)
    for place in range(rows, rows + 8 * load_i64(block + ROWS), 8):
        prefetch_bytes(load_i64(place), ahead)


@device
def _take_values(x: int, active: int, start: int, end: int, values: int) -> None:
    """The activations of a block, padded with zeros."""
    for place in range(0, 128, 64):
        store(values + place, splat(0.0))
    for index in range(start, end):
        store_f32(values + 4 * (index - start), load_f32(x + 4 * channel(active, index)))


@device
def prepare_block(
    arguments: int, start: int, stop: int, rows: int, digits: int, entry: int, first: int
) -> int:
    """Write the tables of the block that begins at a position of the list (see `active_rows`).

    Args:
        arguments: the argument block.
        start, stop: positions on the list, where the block begins and where it ends at the latest.
        rows: where addresses of rows go.
        digits: where activations go.
        entry: where the entry of the block goes.
        first: the column where rows begin.

    Returns:
        The end of the block on the list.
    """
    matrix, active = load_i64(arguments + SPVMM.matrix), load_i64(arguments + SPVMM.active)
    row_bytes, offset = load_i64(matrix + ROW_BYTES), bytes_of(matrix, first)
    shift, block = _group_shift(matrix), block_shift(load_i64(matrix + GROUP))
    panel = channel(active, start) >> shift
    header = load_i64(matrix + DATA) + panel * load_i64(matrix + PANEL_BYTES)
    base = header + load_i64(matrix + HEADER_BYTES) - (panel << shift) * row_bytes + offset
    end = collect(active, start, stop, block, base, row_bytes, rows)
    floats = digit_bytes(matrix) == 16
    values = digits if floats else digits + 64
    _take_values(load_i64(arguments + SPVMM.x), active, start, end, values)
    store_i64(entry + HEADER, header)
    store_i64(entry + ROWS, fours(end - start))
    if not floats:
        scale, whole = quantize_values(values, digits)
        store_f32(entry + SCALE, scale)
        store_f32(entry + WHOLE, whole)
    return end


@device
def end_blocks(entry: int) -> None:
    """Write an entry without rows behind that of the last block."""
    store_i64(entry + HEADER, load_i64(entry - BLOCK_BYTES + HEADER))
    store_i64(entry + ROWS, 0)


@device
def prepare(
    arguments: int, start: int, stop: int, rows: int, digits: int, blocks: int, first: int
) -> int:
    """Write the tables of all blocks at start..stop-1 of the list, as `prepare_block` does.

    Returns:
        How many blocks there are.
    """
    step, entry = digit_bytes(load_i64(arguments + SPVMM.matrix)), blocks
    while start < stop:
        start = prepare_block(arguments, start, stop, rows, digits, entry, first)
        count = load_i64(entry + ROWS)
        rows, digits, entry = rows + 8 * count, digits + step * count // 4, entry + BLOCK_BYTES
    end_blocks(entry)
    return (entry - blocks) // BLOCK_BYTES


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
    # One block is prepared while the one before it is read. The first of the next part, too, which
    # this thread most likely takes: its rows are prefetched.
    wanted = load_i64(active) if panels == 1 else stop
    rows, digits = scratch + TABLES, scratch + load_i64(arguments + SPVMM.digits_at)
    block = digits + load_i64(arguments + SPVMM.blocks_after)
    nbytes, step = bytes_of(matrix, columns), digit_bytes(matrix)
    ahead = bytes_ahead(active, load_i64(matrix + INPUTS), nbytes)
    end = prepare_block(arguments, start, stop, rows, digits, block, first)
    _prefetch_first(matrix, block, columns, first, rows, ahead)
    while start < stop:
        count = load_i64(block + ROWS)
        following, later, entry = rows + 8 * count, digits + step * count // 4, block + BLOCK_BYTES
        start = end
        if start < wanted:
            until = stop if start < stop else wanted
            end = prepare_block(arguments, start, until, following, later, entry, first)
        else:
            end_blocks(entry)
        add_block(matrix, block, rows, following, ahead, digits, first, nbytes, sums)
        rows, digits, block = following, later, entry
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
