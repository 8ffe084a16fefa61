"""Bundle: what one FFN neuron costs, up row and down column, side by side in memory.

A neuron that is active needs both and one that is not needs neither, so that they are read in one
run twice as long. An up row is as in an output-major matrix, its scales inline; behind it stand the
numbers of the down column as in an input-major matrix, and the down scales of a group of neurons
form the header of their panel. Arithmetic only, as in `layout`; packing is in converters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import ALIGNMENT, aligned_empty, round_up
from sparity_edge.errors import FormatError
from sparity_edge.packed.layout import BY_THEMSELVES, Layout, PackedMatrix

# What a bundle and its halves are called in a layer.
BUNDLE = "mlp.up_down"
UP, DOWN = "mlp.up_proj.weight", "mlp.down_proj.weight"


def halves_of(name: str) -> tuple[str, str]:
    """Names of the two matrices that the bundle `name` stores."""
    return name.replace(BUNDLE, UP), name.replace(BUNDLE, DOWN)


def bundle_of(name: str) -> str | None:
    """Name of the bundle that may store the tensor `name`; None: it is stored by itself."""
    for half in (UP, DOWN):
        if name.endswith("." + half):
            return name.removesuffix(half) + BUNDLE
    return None


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
        if self.up.dtype in BY_THEMSELVES:
            raise FormatError(f"a bundle takes no {self.up.dtype}.")
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
        return round_up(self.up.row_bytes, ALIGNMENT)

    @property
    def row_bytes(self) -> int:
        """Distance from one neuron to the next in a panel; a multiple of 64."""
        return self.down_offset + self.down.row_bytes

    @property
    def panel_bytes(self) -> int:
        """Distance from one panel to the next."""
        return self.header_bytes + self.group * self.row_bytes

    @property
    def nbytes(self) -> int:
        """Bytes of the whole bundle."""
        return self.factors_at + self.down.factors_nbytes

    @property
    def dense_nbytes(self) -> int:
        """Bytes of both matrices in a dense pack."""
        return self.up.dense_nbytes + self.down.dense_nbytes

    @property
    def factors_at(self) -> int:
        """Where what the scales of down multiply stands, if it is a K-quant: behind the panels."""
        return self.panels * self.panel_bytes

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that stands in a shard's metadata."""
        return {"up": self.up.to_dict(), "down": self.down.to_dict()}

    @classmethod
    def from_dict(cls, value: Any) -> BundleLayout:
        """Read what `to_dict` wrote.

        Raises:
            FormatError: a field is missing, surplus, of the wrong type or contradicts another.
        """
        if not isinstance(value, Mapping) or set(value) != {"up", "down"}:
            raise FormatError("a bundle must have exactly the keys up, down.")
        return cls(Layout.from_dict(value["up"]), Layout.from_dict(value["down"]))


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
    parts = parts_of(data, layout)
    parts.put_up(0, up.data)
    parts.header[:] = _panels(down)[:, : layout.header_bytes]
    parts.down[:] = _panels(down)[:, layout.header_bytes :].reshape(parts.down.shape)
    parts.factors[:] = _factors(down)
    return PackedBundle(layout, data)


def split(bundle: PackedBundle) -> tuple[PackedMatrix, PackedMatrix]:
    """The two matrices that `join` was given, bit for bit."""
    layout = bundle.layout
    parts = parts_of(bundle.data, layout)
    up, down = aligned_empty(layout.up.nbytes), aligned_empty(layout.down.nbytes)
    up.fill(0)
    up[: layout.neurons * layout.up.row_bytes] = parts.get_up(0, layout.neurons)
    packed = PackedMatrix(layout.down, down)
    _panels(packed)[:, : layout.header_bytes] = parts.header
    _panels(packed)[:, layout.header_bytes :] = parts.down.reshape(layout.panels, -1)
    _factors(packed)[:] = parts.factors
    return PackedMatrix(layout.up, up), packed


_Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class BundleParts:
    """Views of a bundle's bytes."""

    header: _Bytes  # (panels, header_bytes), of down
    up: _Bytes  # (panels, group, up.row_bytes)
    down: _Bytes  # (panels, group, down.row_bytes)
    factors: _Bytes  # (bytes,), of a down half that is a K-quant

    def get_up(self, start: int, stop: int) -> _Bytes:
        """Up rows start:stop behind each other, as a copy."""
        neurons = np.arange(start, stop)
        group = self.up.shape[1]
        rows: _Bytes = self.up[neurons // group, neurons % group]
        return rows.reshape(-1)

    def put_up(self, start: int, rows: _Bytes) -> None:
        """Write up rows that stand behind each other, from row `start` on."""
        _, group, row_bytes = self.up.shape
        count = len(rows) // row_bytes
        neurons = np.arange(start, start + count)
        whole = rows[: count * row_bytes]  # without what fills a matrix up
        self.up[neurons // group, neurons % group] = whole.reshape(-1, row_bytes)


def parts_of(data: _Bytes, layout: BundleLayout) -> BundleParts:
    """The parts of a bundle's bytes."""
    panels = data[: layout.factors_at].reshape(layout.panels, layout.panel_bytes)
    rows = panels[:, layout.header_bytes :].reshape(layout.panels, layout.group, layout.row_bytes)
    return BundleParts(
        panels[:, : layout.header_bytes],
        rows[:, :, : layout.up.row_bytes],
        rows[:, :, layout.down_offset :],
        data[layout.factors_at :],
    )


def _panels(down: PackedMatrix) -> _Bytes:
    """(panels, bytes); each row of floats is one."""
    panels = down.data[: down.layout.nbytes - down.layout.factors_nbytes]
    return panels.reshape(-1, down.layout.panel_bytes)


def _factors(down: PackedMatrix) -> _Bytes:
    return down.data[down.layout.nbytes - down.layout.factors_nbytes :]
