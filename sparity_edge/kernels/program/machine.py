"""ThreadedMachine: compiled kernels on a team of threads, and which of them a model needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sparity_edge.arrays import Bytes, Numbers
from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.compilers import compile_behind, compile_kernels
from sparity_edge.kernels.kernel import let_compiler_rest
from sparity_edge.kernels.machines import Prepared
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.operations import Operations
from sparity_edge.kernels.program.places import Places
from sparity_edge.kernels.program.program import Program
from sparity_edge.kernels.program.recorder import Recorder
from sparity_edge.kernels.program.team import Team
from sparity_edge.kernels.screen import Screen
from sparity_edge.kernels.sparse.ffn import Bundle
from sparity_edge.kernels.table import Stored, kernels_at_start, kernels_of_batches
from sparity_edge.packed.bundle import PackedBundle
from sparity_edge.packed.lane_rows import LaneRows
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.progress import Progress


class _Recorded:
    """A recording and the team that runs it."""

    def __init__(self, team: Team, recorder: Recorder) -> None:
        self._team, self._recorder = team, recorder
        self._places: Places | None = None

    def __call__(self, may_take_long: bool) -> None:
        self._team.run(self._recorder, patient=may_take_long)

    def moves(self, rows: Sequence[Numbers]) -> bool:
        if CHECKED:  # what an operation may touch is written down once
            return False
        self._places = Places(self._recorder, rows)
        return True

    def move(self, rows: Sequence[Numbers]) -> None:
        assert self._places is not None
        self._places.move(rows)


LOOK_AGAIN = 1.0  # seconds between two looks for what another process compiles


class ThreadedMachine:
    """A `Machine` of compiled kernels on a team of threads.

    Args:
        threads: how many work on an operation, at least 1.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.team = Team(threads)
        self._matrices: dict[Stored, None] = {}
        self._ready = 0  # of them, when what batches need was ready
        self._look_again = 0.0  # time before which that is not looked for on disk

    def matrix(self, packed: PackedMatrix) -> Matrix:
        """The words that kernels read about the matrix."""
        self._matrices[Stored(packed.layout)] = None
        return Matrix(packed)

    def bundle(self, packed: PackedBundle) -> Bundle:
        """The words that kernels read about the bundle."""
        for layout in (packed.layout.up, packed.layout.down):
            self._matrices[Stored(layout, of_bundle=True)] = None
        return Bundle(packed)

    def expect_screen(self, projection: Layout) -> None:
        """Have what a screen with such a projection needs compiled with the rest."""
        self._matrices[Stored(projection, of_screen=True)] = None

    def screen(self, projection: PackedMatrix, rows: LaneRows, errors: Bytes) -> Screen:
        """The words that kernels read about the projection, and the rows as they are."""
        self.expect_screen(projection.layout)
        return Screen(Matrix(projection), rows, errors)

    def prepare(self, forward: Callable[[Operations], None], decoding: bool = False) -> Prepared:
        """Record `forward` once."""
        recorder = Recorder(self.threads)
        forward(Program(recorder, decoding))
        self.team.compile()
        let_compiler_rest()
        return _Recorded(self.team, recorder)

    def compile(self, progress: Progress, prompts: bool = True) -> None:
        """Compile what prompts and one token need, by the matrices seen so far."""
        compile_kernels(kernels_at_start(self._matrices, prompts), progress, self.team.compile)

    def compile_batches(self, progress: Progress) -> None:
        """Compile what several sequences that decode together need besides, if it is not yet."""
        self._look_again = 0.0
        wanted = [each for each in kernels_of_batches(self._matrices) if not each.compiled]
        if wanted:
            compile_kernels(wanted, progress)

    def compile_batches_behind(self) -> None:
        """Have that compiled by a process of low priority, for `batches_ready`."""
        compile_behind(kernels_of_batches(self._matrices))

    def batches_ready(self) -> bool:
        """Whether all of it is compiled, or was by an earlier run."""
        if self._ready < len(self._matrices):
            if time.monotonic() < self._look_again:
                return False
            if not all(each.fetched() for each in kernels_of_batches(self._matrices)):
                self._look_again = time.monotonic() + LOOK_AGAIN
                return False
            self._ready = len(self._matrices)
            let_compiler_rest()
        return True

    def close(self) -> None:
        """Give the threads back; the machine cannot run anything afterwards."""
        self.team.close()
