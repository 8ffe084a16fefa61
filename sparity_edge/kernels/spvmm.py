"""Vector times matrix, input-sparse: W x from the rows of an input-major W whose channel is active.

The list is cut into a fixed number of parts, each summed up over whole rows, and the parts are
added in their order: cutting columns instead would make the rows that DRAM sees shorter. Which
channels are active is decided elsewhere; a full list makes this the dense product.
"""

from __future__ import annotations

from sparity_edge.kernels.blocks import (
    CURSOR,
    SEGMENTS,
    SEGMENTS_BYTES,
    VALUES,
    add_block,
    ask,
    block_end,
    block_shift,
    boundary,
    channel,
    clear_sums,
    order_sums,
    set_cursor,
    set_segment,
    tiles,
)
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import (
    DATA,
    GROUP,
    HEADER_BYTES,
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
W, X, LIST, PARTS, PART_SUMS, PART_BYTES = (8 * word for word in range(6))
# Arguments of `add_parts`.
SUMS, STRIDE, COUNT, SIZE, BIAS, ACCUMULATE, OUT = (8 * word for word in range(7))
COLUMNS = 512  # in a chunk of `add_parts`
WHOLE_BLOCK = 1 << 40  # lines, more than any block has


@device
def _segments(matrix: int, active: int, position: int, end: int, segments: int) -> None:
    """Header and rows of the block position..end-1."""
    first, row_bytes = channel(active, position), load_i64(matrix + ROW_BYTES)
    group = max(1, load_i64(matrix + GROUP))
    panel = first // group
    header = load_i64(matrix + DATA) + panel * load_i64(matrix + PANEL_BYTES)
    set_segment(segments, 0, header, load_i64(matrix + HEADER_BYTES))
    rows = header + load_i64(matrix + HEADER_BYTES) - panel * group * row_bytes
    for index in range(position, end):
        row = rows + channel(active, index) * row_bytes
        set_segment(segments, 1 + index - position, row, row_bytes)


@device
def _values(x: int, active: int, position: int, end: int, scratch: int) -> None:
    store(scratch + VALUES, splat(0.0))
    store(scratch + VALUES + 64, splat(0.0))
    for index in range(position, end):
        value = load_f32(x + 4 * channel(active, index))
        store_f32(scratch + VALUES + 4 * (index - position), value)


@Kernel
def spvmm(arguments: int, chunk: int, scratch: int) -> None:
    """Part `chunk` of PARTS of the sum over the active channels of X, to its own PART_SUMS."""
    matrix, active = load_i64(arguments + W), load_i64(arguments + LIST)
    parts, cursor = load_i64(arguments + PARTS), scratch + CURSOR
    clear_sums(
        matrix, load_i64(arguments + PART_SUMS) + chunk * load_i64(arguments + PART_BYTES), scratch
    )
    shift = block_shift(matrix)
    start = boundary(active, chunk, parts, shift)
    stop = boundary(active, chunk + 1, parts, shift)
    if start >= stop:
        return
    here, there = scratch + SEGMENTS, scratch + SEGMENTS + SEGMENTS_BYTES
    end = block_end(active, start, stop, shift)
    _segments(matrix, active, start, end, here)
    set_cursor(cursor, here, 0, end - start)
    ask(cursor, WHOLE_BLOCK)
    steps = tiles(matrix)
    block_lines = load_i64(matrix + ROW_BYTES) // 64 + 1
    while start < stop:
        after, lines = end, 0
        if end < stop:
            after = block_end(active, end, stop, shift)
            _segments(matrix, active, end, after, there)
            set_cursor(cursor, there, 0, after - end)
            header_lines = load_i64(matrix + HEADER_BYTES) // 64
            lines = (header_lines + (after - end) * block_lines) // steps + 1
        _values(load_i64(arguments + X), active, start, end, scratch)
        add_block(matrix, here, end - start, 0, lines, scratch)
        here, there = there, here
        start, end = end, after
    order_sums(matrix, scratch)


@Kernel
def add_parts(arguments: int, chunk: int, scratch: int) -> None:
    """COLUMNS sums over the COUNT parts, plus BIAS if there is one, plus OUT if ACCUMULATE."""
    first = chunk * COLUMNS
    sums, bias = load_i64(arguments + SUMS), load_i64(arguments + BIAS)
    size = load_i64(arguments + SIZE)
    for c in range(first, min(first + COLUMNS, size), 16):
        value, part = splat(0.0), sums + 4 * c
        for _ in range(load_i64(arguments + COUNT)):
            value = add(value, load(part))
            part += load_i64(arguments + STRIDE)
        store(scratch, value)
        for i in range(c, min(c + 16, size)):
            result, out = load_f32(scratch + 4 * (i - c)), load_i64(arguments + OUT) + 4 * i
            if bias != 0:
                result += load_f32(bias + 4 * i)
            if load_i64(arguments + ACCUMULATE) != 0:
                result += load_f32(out)
            store_f32(out, result)
