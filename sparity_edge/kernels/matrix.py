"""Matrix: what kernels are told of a packed matrix, int64 words at a known address.

The words mirror `sparity_edge.layout.Layout`; the offsets are computed there, never here.
"""

from __future__ import annotations

import numpy as np

from sparity_edge.layout import DTYPE_BITS, PackedMatrix

# Offsets of the words in bytes.
DATA, DTYPE, BITS, ROW_BYTES, HEADER_BYTES, PANEL_BYTES = (8 * word for word in range(6))
GROUP, GROUPS, MINIMUM, OUTPUTS, INPUTS, PADDED = (8 * word for word in range(6, 12))
F32, BF16, INT8, INT4, INT4K, INT6K = range(6)
_CODES = {"f32": F32, "bf16": BF16, "int8": INT8, "int4": INT4, "int4k": INT4K, "int6k": INT6K}


class Matrix:
    """A packed matrix as kernels see it; keeps the weights alive as long as it lives."""

    def __init__(self, packed: PackedMatrix) -> None:
        layout = packed.layout
        self.layout = layout
        self._data = packed.data
        self._words = np.array(
            [
                packed.data.ctypes.data,
                _CODES[layout.dtype],
                DTYPE_BITS[layout.dtype],
                layout.row_bytes,
                layout.header_bytes,
                layout.panel_bytes,
                layout.group,
                layout.groups,
                layout.minimum,
                *layout.shape,
                layout.padded,
            ],
            dtype=np.int64,
        )

    @property
    def data_address(self) -> int:
        """Where the packed bytes stand."""
        return int(self._data.ctypes.data)

    @property
    def address(self) -> int:
        """Where the words stand."""
        return int(self._words.ctypes.data)
