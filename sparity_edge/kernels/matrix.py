"""Matrix: what kernels are told of a packed matrix, int64 words at a known address.

The words mirror `packed.layout.Layout`; the offsets are computed there, never here. A half of a
bundle is a matrix too, whose rows are further apart: products of many tokens read it in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparity_edge.arrays import TAIL
from sparity_edge.packed.bundle import PackedBundle
from sparity_edge.packed.layout import DTYPE_BITS, ZEROS, Layout, PackedMatrix

# Offsets of the words in bytes.
DATA, DTYPE, BITS, ROW_BYTES, HEADER_BYTES, PANEL_BYTES = (8 * word for word in range(6))
GROUP, GROUPS, MINIMUM, OUTPUTS, INPUTS, PADDED = (8 * word for word in range(6, 12))
# Output-major: row i stands at DATA + i // PANEL_ROWS * PANEL_BYTES + i % PANEL_ROWS * ROW_BYTES.
PANEL_ROWS = 8 * 12
# Where in an output-major row its scales begin; HEADER_BYTES is where its numbers do, or those of
# an input-major panel.
SCALES_AT = 8 * 13
# Bytes of such a row; ROW_BYTES is more where those of another matrix stand between them.
ROW_END = 8 * 14
# What is taken off its integers before they are scaled; 0 where minima do that, or signs.
ZERO = 8 * 15
# Of an input-major K-quant: where that stands which its scales are multiples of, behind all panels
# (counted from DATA), and the bytes of it for each 256 inputs.
FACTORS_AT, FACTOR_BYTES = 8 * 16, 8 * 17
# Of a matrix without panels; a multiple of the outputs that a product takes at once.
ROWS_TOGETHER = 128
F32, BF16, INT8, INT4, INT4K, INT6K, INT5, INT5K, IQ4, IQ4K, INT3K, INT2K = range(12)
_CODES = {
    "f32": F32, "bf16": BF16, "int8": INT8, "int4": INT4, "int4k": INT4K, "int6k": INT6K,
    "int5": INT5, "int5k": INT5K, "iq4": IQ4, "iq4k": IQ4K, "int3k": INT3K, "int2k": INT2K,
}  # fmt: skip


@dataclass(frozen=True)
class Places:
    """Where the rows of a matrix stand, in bytes; see PANEL_ROWS."""

    start: int  # of the first row (output-major) or header (input-major)
    row_bytes: int
    numbers_at: int  # in a row (output-major) or panel (input-major)
    panel_rows: int
    panel_bytes: int
    factors_at: int = 0  # of an input-major K-quant


class Matrix:
    """A packed matrix as kernels see it; keeps the weights alive as long as it lives."""

    def __init__(self, packed: PackedMatrix, places: Places | None = None) -> None:
        layout = packed.layout
        self.layout = layout
        self._data = packed.data
        places = places or _places(layout)
        self._words = np.array(
            [
                packed.data.ctypes.data + places.start,
                _CODES[layout.dtype],
                DTYPE_BITS[layout.dtype],
                places.row_bytes,
                places.numbers_at,
                places.panel_bytes,
                layout.group,
                layout.groups,
                layout.minimum,
                *layout.shape,
                layout.padded,
                places.panel_rows,
                layout.scales_at,
                layout.row_bytes,
                0 if layout.minimum else ZEROS.get(layout.dtype, 0),
                places.factors_at,
                layout.factor_bytes,
            ],
            dtype=np.int64,
        )
        self.address = int(self._words.ctypes.data)  # where the words stand

    @property
    def memory(self) -> list[tuple[int, int]]:
        """Of what kernels reach from `address`: each first address, and the first behind it."""
        words, data = self.address, self.data_address
        return [(words, words + self._words.nbytes), (data, data + self._data.nbytes + TAIL)]

    @property
    def data_address(self) -> int:
        """Where the packed bytes stand."""
        return int(self._data.ctypes.data)


def up_of(bundle: PackedBundle) -> Matrix:
    """The up half of a bundle, whose panels begin with the scales of the down half."""
    layout = bundle.layout
    rows, panel_bytes = layout.group, layout.panel_bytes
    if not layout.header_bytes:
        rows, panel_bytes = ROWS_TOGETHER, ROWS_TOGETHER * layout.row_bytes
    places = Places(layout.header_bytes, layout.row_bytes, layout.up.numbers_at, rows, panel_bytes)
    return Matrix(PackedMatrix(layout.up, bundle.data), places)


def down_of(bundle: PackedBundle) -> Matrix:
    """The down half of a bundle, the numbers of whose rows follow those of up."""
    layout = bundle.layout
    numbers_at = layout.header_bytes + layout.down_offset
    places = Places(
        0, layout.row_bytes, numbers_at, layout.group, layout.panel_bytes, layout.factors_at
    )
    return Matrix(PackedMatrix(layout.down, bundle.data), places)


def _places(layout: Layout) -> Places:
    if layout.orientation == "input":
        rows, panel_bytes = max(1, layout.group), layout.panel_bytes
    else:
        rows, panel_bytes = ROWS_TOGETHER, ROWS_TOGETHER * layout.row_bytes
    factors_at = layout.nbytes - layout.factors_nbytes
    return Places(0, layout.row_bytes, layout.numbers_at, rows, panel_bytes, factors_at)
