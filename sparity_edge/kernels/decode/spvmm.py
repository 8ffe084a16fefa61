"""Vector times matrix, input-sparse: W x from the rows of an input-major W whose channel is active.

A chunk is a panel of columns, narrow enough that its sums stay in L1, of a part of the list, so
wide that rows stay long; parts are added in their order. Which channels are active is decided
elsewhere; a full list makes this the dense product.
"""

from __future__ import annotations

from sparity_edge.kernels.decode.axpy_blocks import (
    BLOCK_BYTES,
    CHANNELS,
    FIRST_FREE,
    HEADER,
    ROWS,
    SCALE,
    WHOLE,
    add_block,
    ask_bytes,
    boundary,
    bytes_ahead,
    bytes_of,
    channel,
    clear,
    collect,
    digit_bytes,
    order_sums,
    quantize_values,
)
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import (
    DATA,
    GROUP,
    HEADER_BYTES,
    INPUTS,
    MINIMUM,
    PADDED,
    PANEL_BYTES,
    ROW_BYTES,
)
from sparity_edge.kernels.simd.memory import load, load_f32, load_i64, store, store_f32, store_i64
from sparity_edge.kernels.simd.vectors import add, splat

# Arguments of `spvmm`.
W, X, LIST, PARTS, PANELS, PANEL_COLUMNS, PART_SUMS, PART_BYTES, TABLE = (
    8 * word for word in range(9)
)
# Arguments of `add_parts`.
SUMS, STRIDE, COUNT, SIZE, BIAS, ACCUMULATE, OUT = (8 * word for word in range(7))
COLUMNS = 128  # in a chunk of `add_parts`
MOST_COLUMNS = 4096  # of a panel: 16 KB of sums in L1
TABLES = FIRST_FREE  # in scratch, of a part: rows, then digits and blocks


def table(inputs: int) -> tuple[int, int, int]:
    """Where digits stand in scratch, how far on blocks do, and where all of it ends."""
    blocks = -(-inputs // CHANNELS)
    digits = TABLES + 8 * CHANNELS * blocks
    digit_bytes = 4 * CHANNELS * blocks + 256
    return digits, digit_bytes, digits + digit_bytes + BLOCK_BYTES * (blocks + 1)


@device
def _group_shift(matrix: int) -> int:
    """The logarithm of the channels in a panel of rows; without scales all are one panel."""
    group = load_i64(matrix + GROUP)
    if group == 0:
        return 40
    return 5 if group == 32 else 6 if group == 64 else 7


@device
def _ask_first(matrix: int, scales: int, columns: int, rows: int, count: int, ahead: int) -> None:
    """Ask for the scales of the first block and the beginnings of its rows."""
    if digit_bytes(matrix) == 8:
        ask_bytes(scales, 2 * columns)
        ask_bytes(scales + 2 * load_i64(matrix + PADDED) * load_i64(matrix + MINIMUM), 2 * columns)
    for place in range(rows, rows + 8 * count, 8):
        ask_bytes(load_i64(place), ahead)


@device
def _take_values(x: int, active: int, start: int, end: int, values: int) -> None:
    """The activations of a block, zeros behind them."""
    for place in range(0, 128, 64):
        store(values + place, splat(0.0))
    for index in range(start, end):
        store_f32(values + 4 * (index - start), load_f32(x + 4 * channel(active, index)))


@device
def prepare(
    arguments: int, start: int, stop: int, rows: int, digits: int, blocks: int, first: int,
    columns: int, ahead: int,
) -> int:  # fmt: skip
    """The tables of the channels at start..stop-1 of the list, rows from column `first` on.

    Asks for what is read first, since the tables of a whole part take a microsecond. Behind the
    last block stands one without rows.

    Returns:
        How many blocks there are.
    """
    matrix, active = load_i64(arguments + W), load_i64(arguments + LIST)
    row_bytes, offset = load_i64(matrix + ROW_BYTES), bytes_of(matrix, first)
    shift, step, first_block = _group_shift(matrix), digit_bytes(matrix), blocks
    while start < stop:
        panel = channel(active, start) >> shift
        header = load_i64(matrix + DATA) + panel * load_i64(matrix + PANEL_BYTES)
        base = header + load_i64(matrix + HEADER_BYTES) - (panel << shift) * row_bytes + offset
        end = collect(active, start, stop, base, row_bytes, rows)
        if blocks == first_block:
            _ask_first(matrix, header + 2 * first, columns, rows, end - start, ahead)
        values = digits if step == 16 else digits + 64
        _take_values(load_i64(arguments + X), active, start, end, values)
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


@Kernel
def spvmm(arguments: int, chunk: int, scratch: int) -> None:
    """Chunk `chunk` of PARTS * PANELS of the sum over active channels of X, to its PART_SUMS."""
    matrix, active = load_i64(arguments + W), load_i64(arguments + LIST)
    parts, panels = load_i64(arguments + PARTS), load_i64(arguments + PANELS)
    part = chunk // panels
    columns = load_i64(arguments + PANEL_COLUMNS)
    first = (chunk - part * panels) * columns
    columns = min(columns, load_i64(matrix + PADDED) - first)
    sums = load_i64(arguments + PART_SUMS) + part * load_i64(arguments + PART_BYTES) + 4 * first
    clear(sums, columns)
    start, stop = boundary(active, part, parts), boundary(active, part + 1, parts)
    if start >= stop:
        return
    rows, digits = scratch + TABLES, scratch + load_i64(arguments + TABLE)
    block = digits + load_i64(arguments + TABLE + 8)
    nbytes, step = bytes_of(matrix, columns), digit_bytes(matrix)
    ahead = bytes_ahead(active, load_i64(matrix + INPUTS), nbytes)
    blocks = prepare(arguments, start, stop, rows, digits, block, first, columns, ahead)
    for _ in range(blocks):
        count = load_i64(block + ROWS)
        following = rows + 8 * count
        add_block(matrix, block, rows, following, ahead, digits, first, nbytes, sums)
        rows, digits, block = following, digits + step * count // 4, block + BLOCK_BYTES
    order_sums(matrix, sums, columns)


@Kernel
def add_parts(arguments: int, chunk: int, scratch: int) -> None:
    """COLUMNS sums over the COUNT parts, plus BIAS if there is one, plus OUT if ACCUMULATE."""
    first, size = chunk * COLUMNS, load_i64(arguments + SIZE)
    sums, out = load_i64(arguments + SUMS), load_i64(arguments + OUT)
    bias, accumulate = load_i64(arguments + BIAS), load_i64(arguments + ACCUMULATE) != 0
    for c in range(first, min(first + COLUMNS, size), 16):
        value, part = splat(0.0), sums + 4 * c
        for _ in range(load_i64(arguments + COUNT)):
            value = add(value, load(part))
            part += load_i64(arguments + STRIDE)
        if c + 16 <= size:
            if bias != 0:
                value = add(value, load(bias + 4 * c))
            if accumulate:
                value = add(value, load(out + 4 * c))
            store(out + 4 * c, value)
            continue
        store(scratch, value)
        for i in range(c, size):  # nothing may be written behind the last
            result = load_f32(scratch + 4 * (i - c))
            if bias != 0:
                result += load_f32(bias + 4 * i)
            if accumulate:
                result += load_f32(out + 4 * i)
            store_f32(out + 4 * i, result)
