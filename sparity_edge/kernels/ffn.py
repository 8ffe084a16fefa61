"""FFN over active neurons: out += sum of a_i * down column i, a_i = (g_i - c_i) * (up row i . x).

Up row and down column of a neuron stand together (`sparity_edge.bundle`): one gather reads both.
The list is cut into parts as in `spvmm`, whose `add_parts` adds them. Where gates are centred, the
dense term of the neurons that are left out is an ordinary product, added by the caller.
"""

from __future__ import annotations

import numpy as np

from sparity_edge.bundle import PackedBundle
from sparity_edge.kernels.blocks import (
    CHANNELS,
    FIRST_FREE,
    MOST_AHEAD,
    NEAR,
    VALUES,
    add_rows,
    ask_bytes,
    boundary,
    bytes_of,
    channel,
    clear,
    collect,
    digit_bytes,
    fours,
    order_sums,
    quantize_values,
    repeat,
    rows_ahead,
    scale_up,
)
from sparity_edge.kernels.compress import store_i64
from sparity_edge.kernels.dots import product_of, row_dot
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import PADDED, down_of, up_of
from sparity_edge.kernels.simd import load_f32, load_i64, splat, store, store_f32

# The words of a bundle.
DATA, UP, DOWN, GROUP, HEADER_BYTES, ROW_BYTES, PANEL_BYTES, DOWN_OFFSET = (
    8 * word for word in range(8)
)
# Arguments: those of `vmm` with the up matrix as W, then these.
BUNDLE, GATE, CENTRE, LIST, PARTS, PART_SUMS, PART_BYTES = (8 * word for word in range(10, 17))
# Scratch: digits, what is read of two blocks, and sums of integers.
DIGITS_PLACE = FIRST_FREE
TABLES = DIGITS_PLACE + 4 * CHANNELS
TABLE_BYTES = 8 * (2 * CHANNELS + MOST_AHEAD)
INTEGERS = TABLES + 2 * TABLE_BYTES
# Rows up to so many bytes are asked for a block ahead (0.7 KB, half of them, fast memory: 22 us
# where a pair ahead takes 39; 1.7 KB: 220 and 425; 4 KB, slow memory: 1030 and 1000).
LONG_ROW = 3072


class Bundle:
    """A bundle as kernels see it; keeps the weights alive as long as it lives.

    `up_rows` and `down_rows` are its halves as matrices, for products of many tokens.
    """

    def __init__(self, packed: PackedBundle) -> None:
        layout = packed.layout
        self.layout = layout
        self.up_rows = up_of(packed)
        self.down_rows = down_of(packed)
        self._words = np.array(
            [
                packed.data.ctypes.data,
                self.up_rows.address,
                self.down_rows.address,
                layout.group,
                layout.header_bytes,
                layout.row_bytes,
                layout.panel_bytes,
                layout.down_offset,
            ],
            dtype=np.int64,
        )

    @property
    def address(self) -> int:
        """Where the words stand."""
        return int(self._words.ctypes.data)


@device
def _header(bundle: int, active: int, position: int) -> int:
    """The header of the block that begins at a position of the list."""
    panel = channel(active, position) // load_i64(bundle + GROUP)
    return load_i64(bundle + DATA) + panel * load_i64(bundle + PANEL_BYTES)


@device
def _collect(arguments: int, position: int, table: int) -> int:
    """What is read of the block that begins at a position of the list, in that order: up rows,
    filled up to fours, down columns, and the last one MOST_AHEAD times more.

    Returns:
        The end of the block on the list.
    """
    bundle, active = load_i64(arguments + BUNDLE), load_i64(arguments + LIST)
    row_bytes, offset = load_i64(bundle + ROW_BYTES), load_i64(bundle + DOWN_OFFSET)
    panel = channel(active, position) // load_i64(bundle + GROUP)
    base = _header(bundle, active, position) + load_i64(bundle + HEADER_BYTES)
    base -= panel * load_i64(bundle + GROUP) * row_bytes
    end = collect(active, position, load_i64(active), base, row_bytes, table)
    columns = table + 8 * fours(end - position)
    for place in range(table, columns, 8):
        store_i64(columns - table + place, load_i64(place) + offset)
    repeat(columns + columns - table, MOST_AHEAD)
    return end


@device
def _middle(arguments: int, neuron: int, up: float) -> float:
    """(g - c) u of one neuron."""
    gate = load_f32(load_i64(arguments + GATE) + 4 * neuron)
    centre = load_i64(arguments + CENTRE)
    if centre != 0:
        gate -= load_f32(centre + 4 * neuron)
    return gate * up


@device
def _values(arguments: int, position: int, end: int, rows: int, asks: int, scratch: int) -> None:
    """The middle values of a block to VALUES, while the rows on the table `asks` are asked for."""
    up, active = load_i64(load_i64(arguments + BUNDLE) + UP), load_i64(arguments + LIST)
    place = scratch + VALUES
    store(place, splat(0.0))
    store(place + 64, splat(0.0))
    product = product_of(up, arguments)
    for index in range(position, end):
        row = load_i64(rows)
        dot = row_dot(product, row, load_i64(asks) - row, scratch)
        store_f32(place, _middle(arguments, channel(active, index), dot))
        rows, asks, place = rows + 8, asks + 8, place + 4


@device
def _go_on(table: int, others: int) -> None:
    """Behind what is read of a block, what comes next."""
    for place in range(0, 8 * MOST_AHEAD, 8):
        store_i64(table + place, load_i64(others + place))


@device
def ask_rows(bundle: int, table: int, first: int, count: int) -> None:
    """Ask for rows first..count-1 of a table, unless they are long."""
    row_bytes = load_i64(bundle + ROW_BYTES)
    if row_bytes <= LONG_ROW:
        for place in range(8 * first, 8 * count, 8):
            ask_bytes(load_i64(table + place), row_bytes)


@device
def look_ahead(
    bundle: int, here: int, count: int, following: int, others: int
) -> tuple[int, int, int]:
    """What is asked for while a block of `count` rows is read, whose table is `here`.

    Args:
        bundle: whose block it is.
        here: its table.
        count: its rows, a multiple of four.
        following: the table of the block that comes next.
        others: rows of that block, a multiple of four.

    Returns:
        The tables of what up rows and down columns ask for, and `near` of `add_rows`.
    """
    down = load_i64(bundle + DOWN)
    nbytes = bytes_of(down, load_i64(down + PADDED))
    if load_i64(bundle + ROW_BYTES) <= LONG_ROW:
        return following, following + 8 * others, nbytes
    columns = here + 8 * count
    _go_on(columns + 8 * count, following)
    return here + 16, columns + rows_ahead(down, nbytes), min(NEAR, nbytes)


@Kernel
def ffn(arguments: int, chunk: int, scratch: int) -> None:
    """Part `chunk` of PARTS of the sum over the active neurons, to its own PART_SUMS."""
    bundle, active = load_i64(arguments + BUNDLE), load_i64(arguments + LIST)
    down, parts = load_i64(bundle + DOWN), load_i64(arguments + PARTS)
    sums = load_i64(arguments + PART_SUMS) + chunk * load_i64(arguments + PART_BYTES)
    columns, integers = load_i64(down + PADDED), scratch + INTEGERS
    clear(sums, columns)
    start, stop = boundary(active, chunk, parts), boundary(active, chunk + 1, parts)
    if start >= stop:
        return
    here, there = scratch + TABLES, scratch + TABLES + TABLE_BYTES
    end = _collect(arguments, start, here)
    nbytes, exact = bytes_of(down, columns), digit_bytes(down) == 8
    header = _header(bundle, active, start)
    ask_bytes(header, load_i64(bundle + HEADER_BYTES))
    ask_rows(bundle, here, 0, end - start)
    if exact:
        clear(integers, columns)
    while start < stop:
        count, after, other, following = fours(end - start), end, header, here
        if end < load_i64(active):  # of the next part, too, which this thread most likely takes
            following, after = there, _collect(arguments, end, there)
            other = _header(bundle, active, end)
        asks, wanted, near = look_ahead(bundle, here, count, following, fours(after - end))
        _values(arguments, start, end, here, asks, scratch)
        ask_rows(bundle, following, end - start, after - end)
        values, to = scratch + VALUES, sums
        if exact:
            scale, whole = quantize_values(values, scratch + DIGITS_PLACE)
            values, to = scratch + DIGITS_PLACE, integers
        add_rows(down, here + 8 * count, wanted, near, count, nbytes, values, to)
        if exact:
            scale_up(down, header, other, columns, scale, whole, integers, sums)
        here, there = there, here
        start, end, header = end, after, other
    order_sums(down, sums, columns)
