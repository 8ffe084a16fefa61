"""Machine: what carries out the operations of a model (`operations`).

There are two: `reference.machine`, in plain NumPy, and `program.machine`, compiled kernels on a
team of threads. Imports no Numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sparity_edge.arrays import Bytes, Numbers
from sparity_edge.kernels.operations import Bundle, Matrix, Operations
from sparity_edge.kernels.screen import Screen
from sparity_edge.packed.bundle import PackedBundle
from sparity_edge.packed.lane_rows import LaneRows
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.progress import Progress


class Prepared(Protocol):
    """What `Machine.prepare` gives: runs what was prepared, again and again."""

    def __call__(self, may_take_long: bool) -> None:
        """Run it.

        Args:
            may_take_long: whether it has to be interruptible.
        """

    def moves(self, rows: Sequence[Numbers]) -> bool:
        """Have `move` ready for rows of KV caches that were named; False: prepare anew instead.

        Args:
            rows: all of them, (heads, capacity) each; several may be one. The caller keeps them.
        """

    def move(self, rows: Sequence[Numbers]) -> None:
        """Name other rows in place of those of `moves`, as many and in the same order.

        Args:
            rows: with no more positions than `kv_format.room_of` those that were there at first.
        """


class Machine(Protocol):
    """Carries out operations."""

    threads: int

    def matrix(self, packed: PackedMatrix) -> Matrix:
        """What operations take as a matrix."""

    def bundle(self, packed: PackedBundle) -> Bundle:
        """What `neurons` takes as a bundle."""

    def expect_screen(self, projection: Layout) -> None:
        """Have what a screen with such a projection needs compiled with the rest."""

    def screen(self, projection: PackedMatrix, rows: LaneRows, errors: Bytes) -> Screen:
        """What `screened` takes as a screen.

        Args:
            projection: (coordinates, inputs).
            rows: (outputs, coordinates).
            errors: `screen.error_bytes` of its outputs.
        """

    def prepare(self, forward: Callable[[Operations], None], decoding: bool = False) -> Prepared:
        """Make `forward` runnable again and again while the arrays it names stay in place.

        Args:
            forward: calls operations.
            decoding: every row is the next token of a sequence of its own, so that reading weights
                is what costs: each is read once for all rows, and not if no row needs it.

        Returns:
            What runs it.
        """

    def compile(self, progress: Progress, prompts: bool = True) -> None:
        """Get machine code for single tokens ready, and for prompts, telling how far it is."""

    def compile_batches(self, progress: Progress) -> None:
        """Get ready besides what several sequences that decode together need."""

    def compile_batches_behind(self) -> None:
        """Begin with that behind other work, and return at once."""

    def batches_ready(self) -> bool:
        """Whether that is ready."""

    def close(self) -> None:
        """Give threads back."""
