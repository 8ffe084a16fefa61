"""The LM head behind a screen: of a token's logits, the largest exactly and the others about so.

A screen is a copy of the head in fewer coordinates and four bits (`converters.screen` makes it).
Who draws the next token says how many of the largest logits count, and which ids in any case; those
are what the whole head gives, bit for bit. Knows nothing of sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import Bytes, Floats, Integers
from sparity_edge.kernels.active_list import channels
from sparity_edge.kernels.machines import Machine
from sparity_edge.kernels.operations import Matrix, Operations
from sparity_edge.kernels.screen import Candidates
from sparity_edge.packed.lane_rows import LaneRows
from sparity_edge.packed.layout import PackedMatrix

Ids = npt.NDArray[np.intp]


@dataclass(frozen=True)
class HeadScreen:
    """A screen in memory as it is packed."""

    projection: PackedMatrix  # (coordinates, hidden)
    rows: LaneRows  # (vocab_size, coordinates)
    errors: Bytes  # how large the errors of scores are, as `kernels.screen` has them


@dataclass(frozen=True)
class Wanted:
    """Which logits have to be exact: the `count` largest of all but `required`, and those."""

    count: int
    required: Integers  # (n,) token ids, ascending


class ScreenedHead:
    """The head of one model, its screen, and the memory of a product of each row of a pass.

    Args:
        screen: made for this head.
        machine: what will carry it out.
    """

    def __init__(self, screen: HeadScreen, machine: Machine) -> None:
        self.packed = screen
        self._screen = machine.screen(screen.projection, screen.rows, screen.errors)
        self._candidates: list[Candidates] = []  # of each row

    def forward(self, ops: Operations, h: Floats, head: Matrix, logits: Floats) -> None:
        """The logits (rows, vocab_size) of normalised activations (rows, hidden), row by row."""
        for row in range(len(h)):
            own = slice(row, row + 1)
            ops.screened(h[own], head, self._screen, self._of_row(row), logits[own])

    def ask(self, wanted: Sequence[Wanted]) -> None:
        """Say what the next pass has to compute exactly, of each of its rows."""
        for row, each in enumerate(wanted):
            self._of_row(row).ask(each.count, each.required)

    @property
    def nbytes(self) -> int:
        """Bytes of the screen."""
        of_rows = self.packed.rows.layout.nbytes + self.packed.errors.nbytes
        return self.packed.projection.layout.nbytes + of_rows

    def exact_ids(self, row: int = 0) -> Ids:
        """The ids whose logits the latest pass computed for a row, ascending."""
        return channels(self._of_row(row).found).astype(np.intp)

    def _of_row(self, row: int) -> Candidates:
        layout = self.packed.rows.layout
        while len(self._candidates) <= row:
            self._candidates.append(Candidates(layout.outputs, layout.inputs))
        return self._candidates[row]
