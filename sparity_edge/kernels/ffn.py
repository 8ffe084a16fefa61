"""FFN over active neurons: out += sum of a_i * down column i, a_i = (g_i - c_i) * (up row i . x).

Up row and down column of a neuron stand together (`sparity_edge.bundle`): one gather reads both.
The list is cut into parts as in `spvmm`, whose `add_parts` adds them. Where gates are centred, the
dense term of the neurons that are left out is an ordinary product, added by the caller.
"""

from __future__ import annotations

import numpy as np

from sparity_edge.bundle import PackedBundle
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
    set_cursor,
    set_segment,
    tiles,
)
from sparity_edge.kernels.dots import two_dots
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import down_of, up_of
from sparity_edge.kernels.simd import load_f32, load_i64, splat, store, store_f32
from sparity_edge.kernels.spvmm import WHOLE_BLOCK

# The words of a bundle.
DATA, UP, DOWN, GROUP, HEADER_BYTES, ROW_BYTES, PANEL_BYTES, DOWN_OFFSET = (
    8 * word for word in range(8)
)
# Arguments: those of `vmm_output` with AHEAD 0 and the up matrix as W, then these.
BUNDLE, GATE, CENTRE, LIST, PARTS, PART_SUMS, PART_BYTES = (8 * word for word in range(10, 17))


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
def _segments(bundle: int, active: int, position: int, end: int, segments: int) -> None:
    """Header and rows of the block position..end-1."""
    group, row_bytes = load_i64(bundle + GROUP), load_i64(bundle + ROW_BYTES)
    panel = channel(active, position) // group
    header = load_i64(bundle + DATA) + panel * load_i64(bundle + PANEL_BYTES)
    set_segment(segments, 0, header, load_i64(bundle + HEADER_BYTES))
    rows = header + load_i64(bundle + HEADER_BYTES) - panel * group * row_bytes
    for index in range(position, end):
        row = rows + channel(active, index) * row_bytes
        set_segment(segments, 1 + index - position, row, row_bytes)


@device
def _middle(arguments: int, neuron: int, up: float) -> float:
    """(g - c) u of one neuron."""
    gate = load_f32(load_i64(arguments + GATE) + 4 * neuron)
    centre = load_i64(arguments + CENTRE)
    if centre != 0:
        gate -= load_f32(centre + 4 * neuron)
    return gate * up


@device
def _values(
    arguments: int, position: int, end: int, here: int, there: int, count: int, scratch: int
) -> int:
    """The middle values of a block; each pair asks for a row of the next one, from the last on.

    Returns:
        How many of the `count` rows of the next block have not been asked for.
    """
    bundle, active = load_i64(arguments + BUNDLE), load_i64(arguments + LIST)
    up, offset = load_i64(bundle + UP), load_i64(bundle + DOWN_OFFSET)
    place = scratch + VALUES
    store(place, splat(0.0))
    store(place + 64, splat(0.0))
    for first in range(position, end, 2):
        index = first - position
        pair = first + 1 < end
        row = load_i64(here + 16 * (index + 1))
        other = load_i64(here + 16 * (index + 2)) if pair else row
        wanted = load_i64(there + 16 * count) if count > 0 else row
        count = max(0, count - 1)
        a, b = two_dots(up, row, other, arguments, wanted, wanted + offset, scratch)
        store_f32(place + 4 * index, _middle(arguments, channel(active, first), a))
        if pair:
            neuron = channel(active, first + 1)
            store_f32(place + 4 * index + 4, _middle(arguments, neuron, b))
    return count


@Kernel
def ffn(arguments: int, chunk: int, scratch: int) -> None:
    """Part `chunk` of PARTS of the sum over the active neurons, to its own PART_SUMS."""
    bundle, active = load_i64(arguments + BUNDLE), load_i64(arguments + LIST)
    down, cursor = load_i64(bundle + DOWN), scratch + CURSOR
    parts = load_i64(arguments + PARTS)
    clear_sums(
        down, load_i64(arguments + PART_SUMS) + chunk * load_i64(arguments + PART_BYTES), scratch
    )
    shift = block_shift(down)
    start = boundary(active, chunk, parts, shift)
    stop = boundary(active, chunk + 1, parts, shift)
    if start >= stop:
        return
    here, there = scratch + SEGMENTS, scratch + SEGMENTS + SEGMENTS_BYTES
    end = block_end(active, start, stop, shift)
    _segments(bundle, active, start, end, here)
    set_cursor(cursor, here, 0, end - start)
    ask(cursor, WHOLE_BLOCK)
    steps, offset = tiles(down), load_i64(bundle + DOWN_OFFSET)
    while start < stop:
        after, lines = end, 0
        if end < stop:
            after = block_end(active, end, stop, shift)
            _segments(bundle, active, end, after, there)
        left = _values(arguments, start, end, here, there, after - end, scratch)
        set_cursor(cursor, there, 0, left if after > end else -1)
        if after > end:
            wanted = left * load_i64(bundle + ROW_BYTES) + load_i64(bundle + HEADER_BYTES)
            lines = wanted // 64 // steps + 1
        add_block(down, here, end - start, offset, lines, scratch)
        here, there = there, here
        start, end = end, after
