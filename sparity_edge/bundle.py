"""Bundle: what one FFN neuron costs, up row and down column, side by side in memory.

A neuron that is active needs both and one that is not needs neither, so that they are read in one
run twice as long. An up row is as in an output-major matrix, its scales inline; behind it stand the
numbers of the down column as in an input-major matrix, and the down scales of a group of neurons
form the header of their panel. Arithmetic only, as in `layout`; packing is in converters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparity_edge.errors import FormatError
from sparity_edge.layout import Layout, PackedMatrix, aligned_empty


@dataclass(frozen=True)
class BundleLayout:
    """How up (neurons, hidden) and down (hidden, neurons) are stored together.

    Raises:
        FormatError: the two do not fit together.
    """

    up: Layout  # output-major
    down: Layout  # input-major

    def __post_init__(self) -> None:
        if (self.up.orientation, self.down.orientation) != ("output", "input"):
            raise FormatError("a bundle takes up by outputs and down by inputs.")
        if self.up.shape[0] != self.down.shape[1]:
            raise FormatError(
                f"up has {self.up.shape[0]} neurons and down {self.down.shape[1]}: no bundle."
            )

    @property
    def neurons(self) -> int:
        """Rows of the bundle."""
        return self.up.shape[0]

    @property
    def group(self) -> int:
        """Neurons of a panel."""
        return max(1, self.down.group)

    @property
    def panels(self) -> int:
        """Panels, the last one filled up."""
        return -(-self.neurons // self.group)

    @property
    def header_bytes(self) -> int:
        """Bytes of down scales (and minima) before the rows of a panel; a multiple of 64."""
        return self.down.header_bytes

    @property
    def down_offset(self) -> int:
        """Where in a row the numbers of the down column start."""
        return self.up.row_bytes

    @property
    def row_bytes(self) -> int:
        """Distance from one neuron to the next in a panel; a multiple of 64."""
        return self.up.row_bytes + self.down.row_bytes

    @property
    def panel_bytes(self) -> int:
        """Distance from one panel to the next."""
        return self.header_bytes + self.group * self.row_bytes

    @property
    def nbytes(self) -> int:
        """Bytes of the whole bundle."""
        return self.panels * self.panel_bytes


@dataclass(frozen=True)
class PackedBundle:
    """One bundle in memory as the kernels want it."""

    layout: BundleLayout
    data: npt.NDArray[np.uint8]  # (layout.nbytes,), starts at a 64-byte boundary


def join(up: PackedMatrix, down: PackedMatrix) -> PackedBundle:
    """Bundle two packed matrices; no value changes."""
    layout = BundleLayout(up.layout, down.layout)
    data = aligned_empty(layout.nbytes)
    data.fill(0)
    header, up_rows, down_rows = _views(data, layout)
    header[:] = _panels(down)[:, : layout.header_bytes]
    down_rows[:] = _panels(down)[:, layout.header_bytes :].reshape(down_rows.shape)
    for neuron, row in enumerate(up.data.reshape(layout.neurons, -1)):
        up_rows[neuron // layout.group, neuron % layout.group] = row
    return PackedBundle(layout, data)


def split(bundle: PackedBundle) -> tuple[PackedMatrix, PackedMatrix]:
    """The two matrices that `join` was given, bit for bit."""
    layout = bundle.layout
    header, up_rows, down_rows = _views(bundle.data, layout)
    up, down = aligned_empty(layout.up.nbytes), aligned_empty(layout.down.nbytes)
    up[:] = up_rows.reshape(-1, layout.up.row_bytes)[: layout.neurons].reshape(-1)
    packed = PackedMatrix(layout.down, down)
    _panels(packed)[:, : layout.header_bytes] = header
    _panels(packed)[:, layout.header_bytes :] = down_rows.reshape(layout.panels, -1)
    return PackedMatrix(layout.up, up), packed


_Bytes = npt.NDArray[np.uint8]


def _panels(down: PackedMatrix) -> _Bytes:
    return down.data.reshape(-1, down.layout.panel_bytes)


def _views(data: _Bytes, layout: BundleLayout) -> tuple[_Bytes, _Bytes, _Bytes]:
    """Headers (panels, bytes), up rows and down rows (panels, group, bytes)."""
    panels = data.reshape(layout.panels, layout.panel_bytes)
    rows = panels[:, layout.header_bytes :].reshape(layout.panels, layout.group, layout.row_bytes)
    return (
        panels[:, : layout.header_bytes],
        rows[:, :, : layout.down_offset],
        rows[:, :, layout.down_offset :],
    )
