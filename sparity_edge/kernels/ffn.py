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
    VALUES,
    add_rows,
    boundary,
    bytes_of,
    channel,
    clear,
    collect,
    digit_bytes,
    order_sums,
    quantize_values,
    scale_up,
)
from sparity_edge.kernels.compress import store_i64
from sparity_edge.kernels.dots import two_dots
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import PADDED, down_of, up_of
from sparity_edge.kernels.simd import load_f32, load_i64, splat, store, store_f32

# The words of a bundle.
DATA, UP, DOWN, GROUP, HEADER_BYTES, ROW_BYTES, PANEL_BYTES, DOWN_OFFSET = (
    8 * word for word in range(8)
)
# Arguments: those of `vmm_output` with AHEAD 0 and the up matrix as W, then these.
BUNDLE, GATE, CENTRE, LIST, PARTS, PART_SUMS, PART_BYTES = (8 * word for word in range(10, 17))
# Scratch: digits, the rows of two blocks, and sums of integers.
DIGITS_PLACE = FIRST_FREE
ROWS = DIGITS_PLACE + 4 * CHANNELS
ROWS_BYTES = 8 * (CHANNELS + MOST_AHEAD)
INTEGERS = ROWS + 2 * ROWS_BYTES


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
def _collect(bundle: int, active: int, position: int, stop: int, rows: int) -> int:
    """The rows of the block that begins at a position of the list; returns its end."""
    row_bytes = load_i64(bundle + ROW_BYTES)
    panel = channel(active, position) // load_i64(bundle + GROUP)
    base = _header(bundle, active, position) + load_i64(bundle + HEADER_BYTES)
    base -= panel * load_i64(bundle + GROUP) * row_bytes
    return collect(active, position, stop, base, row_bytes, rows)


@device
def _middle(arguments: int, neuron: int, up: float) -> float:
    """(g - c) u of one neuron."""
    gate = load_f32(load_i64(arguments + GATE) + 4 * neuron)
    centre = load_i64(arguments + CENTRE)
    if centre != 0:
        gate -= load_f32(centre + 4 * neuron)
    return gate * up


@device
def _values(arguments: int, position: int, end: int, rows: int, scratch: int) -> None:
    """The middle values of a block to VALUES; up rows are asked for a pair ahead."""
    bundle, active = load_i64(arguments + BUNDLE), load_i64(arguments + LIST)
    up, offset = load_i64(bundle + UP), load_i64(bundle + DOWN_OFFSET)
    place, start = scratch + VALUES, rows
    store(place, splat(0.0))
    store(place + 64, splat(0.0))
    for first in range(position, end, 2):
        row, other = load_i64(rows), load_i64(rows + 8)
        last = first + 2 >= end  # then down columns are next
        wanted = load_i64(start) + offset if last else load_i64(rows + 16)
        second = load_i64(start + 8) + offset if last else load_i64(rows + 24)
        a, b = two_dots(up, row, other, arguments, wanted, second, scratch)
        store_f32(place, _middle(arguments, channel(active, first), a))
        if first + 1 < end:
            store_f32(place + 4, _middle(arguments, channel(active, first + 1), b))
        rows, place = rows + 16, place + 8


@device
def _go_on(rows: int, others: int, count: int, offset: int) -> None:
    """Behind the rows of a block, the up rows of the next, as `add_rows` asks `offset` bytes on."""
    for index in range(MOST_AHEAD):
        row = load_i64(others + 8 * min(index, count - 1))
        store_i64(rows + 8 * index, row - offset)


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
    here, there = scratch + ROWS, scratch + ROWS + ROWS_BYTES
    end = _collect(bundle, active, start, stop, here)
    offset, nbytes = load_i64(bundle + DOWN_OFFSET), bytes_of(down, columns)
    exact = digit_bytes(down) == 8
    if exact:
        clear(integers, columns)
    header = _header(bundle, active, start)
    while start < stop:
        _values(arguments, start, end, here, scratch)
        after, other = end, header
        if end < stop:
            after = _collect(bundle, active, end, stop, there)
            other = _header(bundle, active, end)
        count = (end - start + 3) // 4 * 4
        _go_on(here + 8 * count, here if after == end else there, max(1, after - end), offset)
        if exact:
            scale, whole = quantize_values(scratch + VALUES, scratch + DIGITS_PLACE)
            digits = scratch + DIGITS_PLACE
            add_rows(down, here, count, offset, nbytes, digits, integers)
            scale_up(down, header, other, columns, scale, whole, integers, sums)
        else:
            add_rows(down, here, count, offset, nbytes, scratch + VALUES, sums)
        here, there = there, here
        start, end, header = end, after, other
    order_sums(down, sums, columns)
