"""Vector times matrix, input-sparse: W x from the rows of an input-major W whose channel is active.

A chunk is a panel of columns, narrow enough that its sums stay in L1, of a part of the list, so
wide that rows stay long; parts are added in their order. Which channels are active is decided
elsewhere; a full list makes this the dense product.
"""

from __future__ import annotations

from sparity_edge.kernels.blocks import (
    CHANNELS,
    FIRST_FREE,
    MOST_AHEAD,
    NEAR,
    add_rows,
    ask_bytes,
    boundary,
    bytes_of,
    channel,
    clear,
    collect,
    digit_bytes,
    order_sums,
    quantize_values,
    repeat,
    rows_ahead,
    scale_up,
)
from sparity_edge.kernels.compress import store_i64
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import (
    DATA,
    GROUP,
    HEADER_BYTES,
    MINIMUM,
    PADDED,
    PANEL_BYTES,
    ROW_BYTES,
)
from sparity_edge.kernels.simd import (
    add,
    load,
    load_f32,
    load_i64,
    splat,
    store,
    store_f32,
)

# Arguments of `spvmm`.
W, X, LIST, PARTS, PANELS, PANEL_COLUMNS, PART_SUMS, PART_BYTES, TABLE = (
    8 * word for word in range(9)
)
# Arguments of `add_parts`.
SUMS, STRIDE, COUNT, SIZE, BIAS, ACCUMULATE, OUT = (8 * word for word in range(7))
COLUMNS = 128  # in a chunk of `add_parts`
ASK_FIRST = 1 << 14  # bytes of rows in a part: 64 KB is no better, none 5-10 % worse on short rows
MOST_COLUMNS = 4096  # of a panel: 16 KB of sums in L1
# Scratch: sums of integers, then the table of a part's rows, digits and blocks.
INTEGERS = FIRST_FREE
ROWS = INTEGERS + 4 * MOST_COLUMNS
BLOCK_BYTES = 32  # of a block's entry: header, rows, scale and total of the activations


def table(inputs: int) -> tuple[int, int, int]:
    """Where digits stand in scratch, how far on blocks do, and where all of it ends."""
    blocks = -(-inputs // CHANNELS)
    digits = ROWS + 8 * (CHANNELS * blocks + MOST_AHEAD)
    digit_bytes = 4 * CHANNELS * blocks + 256
    return digits, digit_bytes, digits + digit_bytes + BLOCK_BYTES * blocks


@device
def _group_shift(matrix: int) -> int:
    """The logarithm of the channels in a panel of rows; without scales all are one panel."""
    group = load_i64(matrix + GROUP)
    if group == 0:
        return 40
    return 5 if group == 32 else 6 if group == 64 else 7


@device
def _ask_first(matrix: int, scales: int, columns: int, rows: int, count: int) -> None:
    """Ask for the scales of a block and the beginnings of its rows."""
    if digit_bytes(matrix) == 8:
        ask_bytes(scales, 2 * columns)
        ask_bytes(scales + 2 * load_i64(matrix + PADDED) * load_i64(matrix + MINIMUM), 2 * columns)
    for place in range(rows, rows + 8 * count, 8):
        ask_bytes(load_i64(place), min(NEAR, bytes_of(matrix, columns)))


@device
def _prepare(
    arguments: int, start: int, stop: int, rows: int, digits: int, blocks: int, first: int,
    columns: int,
) -> int:  # fmt: skip
    """The table of the channels at start..stop-1 of the list, rows from column `first` on.

    Asks for what is read first, since the tables of a whole part take a microsecond.

    Returns:
        How many blocks there are.
    """
    matrix, active = load_i64(arguments + W), load_i64(arguments + LIST)
    x, row_bytes = load_i64(arguments + X), load_i64(matrix + ROW_BYTES)
    asked = 0
    shift, step, first_block = _group_shift(matrix), digit_bytes(matrix), blocks
    while start < stop:
        panel = channel(active, start) >> shift
        header = load_i64(matrix + DATA) + panel * load_i64(matrix + PANEL_BYTES)
        base = (
            header
            + load_i64(matrix + HEADER_BYTES)
            - (panel << shift) * row_bytes
            + bytes_of(matrix, first)
        )
        end = collect(active, start, stop, base, row_bytes, rows)
        if asked < ASK_FIRST:
            _ask_first(matrix, header + 2 * first, columns, rows, end - start)
            asked += (end - start) * min(NEAR, bytes_of(matrix, columns))
        values = digits if step == 16 else digits + 64
        for place in range(0, 128, 64):
            store(values + place, splat(0.0))
        for index in range(start, end):
            store_f32(values + 4 * (index - start), load_f32(x + 4 * channel(active, index)))
        count = (end - start + 3) // 4 * 4
        store_i64(blocks, header)
        store_i64(blocks + 8, count)
        if step == 8:
            scale, whole = quantize_values(values, digits)
            store_f32(blocks + 16, scale)
            store_f32(blocks + 20, whole)
        rows, digits, blocks = rows + 8 * count, digits + step * count // 4, blocks + BLOCK_BYTES
        start = end
    repeat(rows, MOST_AHEAD)
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
    rows, digits = scratch + ROWS, scratch + load_i64(arguments + TABLE)
    block = digits + load_i64(arguments + TABLE + 8)
    blocks = _prepare(arguments, start, stop, rows, digits, block, first, columns)
    nbytes = bytes_of(matrix, columns)
    step, integers, exact = digit_bytes(matrix), scratch + INTEGERS, digit_bytes(matrix) == 8
    if exact:
        clear(integers, columns)
    ahead, near = rows_ahead(matrix, nbytes), min(NEAR, nbytes)
    for index in range(blocks):
        count = load_i64(block + 8)
        to = integers if exact else sums
        add_rows(matrix, rows, rows + ahead, near, count, nbytes, digits, to)
        rows, digits = rows + 8 * count, digits + step * count // 4
        if exact:
            header = load_i64(block) + 2 * first
            other = load_i64(block + BLOCK_BYTES) + 2 * first if index < blocks - 1 else header
            scale, whole = load_f32(block + 16), load_f32(block + 20)
            scale_up(matrix, header, other, columns, scale, whole, integers, sums)
        block += BLOCK_BYTES
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
