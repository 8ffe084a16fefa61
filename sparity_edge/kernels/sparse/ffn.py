"""FFN over active neurons: out += sum of a_i * down column i, a_i = (g_i - c_i) * (up row i . x).

Up row and down column of a neuron stand together (`packed.bundle`): one gather reads both.
The active list is cut into parts as in `spvmm`, whose `add_parts` adds them. Where gates are
centred, the dense term of the neurons that are left out is a product of its own, by the caller.
"""

from __future__ import annotations

import numpy as np

from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.decode.dot_arguments import DOT, product_of
from sparity_edge.kernels.decode.dots import row_dot
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import INPUTS, PADDED, down_of, up_of
from sparity_edge.kernels.simd.memory import load_f32, load_i64, store, store_f32, store_i64
from sparity_edge.kernels.simd.vectors import splat
from sparity_edge.kernels.sparse.active_rows import (
    AGAIN,
    BLOCK_BYTES,
    CHANNELS,
    FIRST_FREE,
    HEADER,
    ROWS,
    SCALE,
    VALUES,
    WHOLE,
    block_shift,
    boundaries,
    channel,
    collect,
    digit_bytes,
    fours,
    prefetch_bytes,
    prefetch_near_bytes,
    quantize_values,
    repeat,
    unsound,
)
from sparity_edge.kernels.sparse.axpy_blocks import (
    add_block,
    bytes_ahead,
    bytes_of,
    clear,
    order_sums,
)
from sparity_edge.packed.bundle import PackedBundle

# The words of a bundle.
DATA, UP, DOWN, GROUP, HEADER_BYTES, ROW_BYTES, PANEL_BYTES, DOWN_OFFSET = (
    8 * word for word in range(8)
)
# The up matrix is that of the dot products, without bias, out, accumulate, step and ahead.
FFN = DOT.plus("bundle gate centre active parts part_sums part_bytes relu_up by_channel")
# Scratch: digits, the entries of two blocks, and what is read of them.
DIGITS_PLACE = FIRST_FREE
ENTRIES = DIGITS_PLACE + 4 * CHANNELS
TABLES = ENTRIES + 2 * BLOCK_BYTES
TABLE_BYTES = 8 * 3 * CHANNELS
SCRATCH_BYTES = TABLES + 2 * TABLE_BYTES
# Rows up to so many bytes are prefetched a block ahead (0.7 KB, half of them, fast memory: 22 us
# where two rows ahead take 39; 1.7 KB: 220 and 425; 4 KB, slow memory: 1030 and 1000; two AMD EPYC,
# bench/kernels.py).
LONG_ROW = 3072
ROWS_AGAIN = 5  # up rows of so many neurons on are prefetched once more, if they are short


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
        self.address = int(self._words.ctypes.data)  # where the words stand

    @property
    def memory(self) -> list[tuple[int, int]]:
        """Of what kernels reach from `address`: each first address, and the first behind it."""
        own = (self.address, self.address + self._words.nbytes)
        return [own, *self.up_rows.memory, *self.down_rows.memory]


@device
def _header(bundle: int, active: int, position: int) -> int:
    """The address of the scales of the block that begins at a position of the list."""
    panel = channel(active, position) // load_i64(bundle + GROUP)
    return load_i64(bundle + DATA) + panel * load_i64(bundle + PANEL_BYTES)


@device
def _collect(arguments: int, position: int, table: int) -> int:
    """Write addresses of what is read of the block that begins at a position of the list.

    In that order: up rows, repeated up to fours, down columns, the last one CHANNELS times more.

    Returns:
        The end of the block on the list.
    """
    bundle, active = load_i64(arguments + FFN.bundle), load_i64(arguments + FFN.active)
    row_bytes, offset = load_i64(bundle + ROW_BYTES), load_i64(bundle + DOWN_OFFSET)
    panel = channel(active, position) // load_i64(bundle + GROUP)
    base = _header(bundle, active, position) + load_i64(bundle + HEADER_BYTES)
    base -= panel * load_i64(bundle + GROUP) * row_bytes
    shift = block_shift(load_i64(bundle + GROUP))
    end = collect(active, position, load_i64(active), shift, base, row_bytes, table)
    columns = table + 8 * fours(end - position)
    for place in range(table, columns, 8):
        store_i64(columns - table + place, load_i64(place) + offset)
    repeat(columns + columns - table, CHANNELS)
    return end


@device
def _middle(arguments: int, neuron: int, up: float) -> float:
    """(g - c) u of one neuron: its gate less the centre, times its up product or ReLU of that."""
    if load_i64(arguments + FFN.relu_up) != 0 and up <= 0:
        up = 0.0
    gate = load_f32(load_i64(arguments + FFN.gate) + 4 * neuron)
    centre = load_i64(arguments + FFN.centre)
    if centre != 0:
        gate -= load_f32(centre + 4 * neuron)
    return gate * up


@device
def _values(arguments: int, position: int, end: int, rows: int, later: int, scratch: int) -> None:
    """The middle values of a block to VALUES; prefetches the rows on the table `later`.

    What is read next was prefetched already, and is once more if rows are short (AGAIN).
    """
    bundle, active = load_i64(arguments + FFN.bundle), load_i64(arguments + FFN.active)
    up, offset = load_i64(bundle + UP), load_i64(bundle + DOWN_OFFSET)
    short = load_i64(bundle + ROW_BYTES) <= LONG_ROW
    place = scratch + VALUES
    store(place, splat(0.0))
    store(place + 64, splat(0.0))
    product = product_of(up, arguments)
    for index in range(position, end):
        row = load_i64(rows)
        if short:
            again = load_i64(rows + 8 * ROWS_AGAIN) if index + ROWS_AGAIN < end else row
            prefetch_near_bytes(again, offset)
            prefetch_near_bytes(row + offset, AGAIN)
        dot = row_dot(product, row, load_i64(later) - row, scratch)
        store_f32(place, _middle(arguments, channel(active, index), dot))
        rows, later, place = rows + 8, later + 8, place + 4


@device
def _pieces(table: int, rows: int, count: int, ahead: int) -> None:
    """Write a table of `count` pieces of `ahead` bytes of the next two rows, interleaved."""
    for index in range(count):
        row = load_i64(rows + 8 * (index & 1))
        store_i64(table + 8 * index, row + (index >> 1) * ahead)


@device
def prefetch_short_rows(bundle: int, table: int, first: int, count: int) -> None:
    """Prefetch rows first..count-1 of a table into L2, unless they are long (LONG_ROW)."""
    row_bytes = load_i64(bundle + ROW_BYTES)
    if row_bytes <= LONG_ROW:
        for place in range(8 * first, 8 * count, 8):
            prefetch_bytes(load_i64(table + place), row_bytes)


@device
def prefetch_up_rows(bundle: int, table: int, count: int) -> None:
    """Prefetch the first up rows of a block once more, unless rows are long (LONG_ROW)."""
    if load_i64(bundle + ROW_BYTES) <= LONG_ROW:
        for place in range(table, table + 8 * min(ROWS_AGAIN, count), 8):
            prefetch_near_bytes(load_i64(place), load_i64(bundle + DOWN_OFFSET))


@device
def look_ahead(
    bundle: int, active: int, here: int, count: int, following: int, others: int
) -> tuple[int, int, int]:
    """What is prefetched while a block is read.

    Args:
        bundle: the descriptor of the bundle.
        active: the active list.
        here: the table of the block.
        count: its rows, a multiple of four.
        following: the table of the next block.
        others: rows of that block, a multiple of four.

    Returns:
        The tables of what is prefetched while up rows and down columns are read, and the prefetch
        distance in a column, in bytes (`ahead` of `add_block`).
    """
    down = load_i64(bundle + DOWN)
    nbytes = bytes_of(down, load_i64(down + PADDED))
    if load_i64(bundle + ROW_BYTES) <= LONG_ROW:
        return following, following + 8 * others, nbytes
    ahead = bytes_ahead(active, load_i64(down + INPUTS), nbytes)
    behind = here + 16 * count
    _pieces(behind, following, others, ahead)
    return here + 16, behind, ahead


@device
def add_columns(
    down: int, here: int, count: int, header: int, following: int, others: int, other: int,
    ahead: int, sums: int, scratch: int,
) -> None:  # fmt: skip
    """Add the down columns of a block whose middle values are at VALUES of `scratch`.

    Args:
        down: the descriptor of the down matrix.
        here: the table of the block.
        count: its rows, a multiple of four.
        header: the address of its scales.
        following: the table of what is prefetched at the end of columns.
        others: rows on it, a multiple of four.
        other: the address of the scales of the next block.
        ahead: the prefetch distance in a column, in bytes.
        sums: the address of the part's float32 sums.
        scratch: that of the token.
    """
    entry, values = scratch + ENTRIES, scratch + VALUES
    store_i64(entry + HEADER, header)
    store_i64(entry + ROWS, count)
    store_i64(entry + BLOCK_BYTES + HEADER, other)
    store_i64(entry + BLOCK_BYTES + ROWS, others)
    if digit_bytes(down) == 8:
        scale, whole = quantize_values(values, scratch + DIGITS_PLACE)
        store_f32(entry + SCALE, scale)
        store_f32(entry + WHOLE, whole)
        values = scratch + DIGITS_PLACE
    nbytes = bytes_of(down, load_i64(down + PADDED))
    add_block(down, entry, here + 8 * count, following, ahead, values, 0, nbytes, sums)


@device
def prefetch_columns(bundle: int, here: int, count: int, ahead: int) -> None:
    """Prefetch the beginnings of a block's down columns, unless rows are short (LONG_ROW)."""
    if load_i64(bundle + ROW_BYTES) > LONG_ROW:
        for place in range(here + 8 * count, here + 16 * count, 8):
            prefetch_bytes(load_i64(place), ahead)


@Kernel(FFN)
def ffn(arguments: int, chunk: int, scratch: int) -> None:
    """Part `chunk` of PARTS of the sum over the active neurons, to its own PART_SUMS."""
    bundle, active = load_i64(arguments + FFN.bundle), load_i64(arguments + FFN.active)
    down, size = load_i64(bundle + DOWN), load_i64(load_i64(bundle + DOWN) + INPUTS)
    if CHECKED and unsound(active, size):
        return
    sums = load_i64(arguments + FFN.part_sums) + chunk * load_i64(arguments + FFN.part_bytes)
    columns = load_i64(down + PADDED)
    clear(sums, columns)
    parts, even = load_i64(arguments + FFN.parts), load_i64(arguments + FFN.by_channel)
    start, stop = boundaries(active, chunk, parts, size, even)
    if start >= stop:
        return
    here, there = scratch + TABLES, scratch + TABLES + TABLE_BYTES
    end = _collect(arguments, start, here)
    header = _header(bundle, active, start)
    prefetch_bytes(header, load_i64(bundle + HEADER_BYTES))
    prefetch_short_rows(bundle, here, 0, end - start)
    while start < stop:
        count, after, other, following = fours(end - start), end, header, here
        if end < load_i64(active):  # of the next part, too, which this thread most likely takes
            following, after = there, _collect(arguments, end, there)
            other = _header(bundle, active, end)
        others = fours(after - end)
        later, wanted, ahead = look_ahead(bundle, active, here, count, following, others)
        _values(arguments, start, end, here, later, scratch)
        prefetch_short_rows(bundle, following, end - start, after - end)
        prefetch_columns(bundle, here, count, ahead)
        add_columns(down, here, count, header, wanted, others, other, ahead, sums, scratch)
        prefetch_up_rows(bundle, following, after - end)
        here, there = there, here
        start, end, header = end, after, other
    order_sums(down, sums, columns)
