"""ReferenceMachine: a machine of plain NumPy that computes operations as they are called.

A model runs on it as well as on `program`'s; slow and simple on purpose. Imports no Numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sparity_edge.arrays import Bytes, Floats, Numbers
from sparity_edge.kernels.machines import Prepared
from sparity_edge.kernels.operations import Operations
from sparity_edge.kernels.reference.reference import Reference
from sparity_edge.kernels.reference.sparse import UpDown
from sparity_edge.kernels.reference.unpack import unpack, unpack_lanes
from sparity_edge.kernels.screen import Screen
from sparity_edge.packed.bundle import PackedBundle, split
from sparity_edge.packed.lane_rows import LaneRows
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.progress import Progress


class _Computed:
    """`forward`, which names its arrays each time."""

    def __init__(self, forward: Callable[[Operations], None]) -> None:
        self._forward = forward

    def __call__(self, may_take_long: bool) -> None:  # noqa: ARG002
        self._forward(Reference())

    def moves(self, rows: Sequence[Numbers]) -> bool:  # noqa: ARG002
        return True

    def move(self, rows: Sequence[Numbers]) -> None:
        pass


class ReferenceMachine:
    """A `Machine` of plain NumPy; matrices are unpacked to float32 when they are first named."""

    threads = 1

    def matrix(self, packed: PackedMatrix) -> Floats:
        """The values of the matrix, (outputs, inputs)."""
        return unpack(packed)

    def bundle(self, packed: PackedBundle) -> UpDown:
        """The values of up (neurons, hidden) and down (hidden, neurons)."""
        up, down = split(packed)
        return unpack(up), unpack(down)

    def expect_screen(self, projection: Layout) -> None:
        """Nothing to compile."""

    def screen(self, projection: PackedMatrix, rows: LaneRows, errors: Bytes) -> Screen:
        """The values of both matrices, float32."""
        return Screen(unpack(projection), unpack_lanes(rows), errors)

    def prepare(
        self,
        forward: Callable[[Operations], None],
        decoding: bool = False,  # noqa: ARG002 - each row is computed alone anyhow
    ) -> Prepared:
        """Nothing can be prepared: `forward` computes each time it is run."""
        return _Computed(forward)

    def compile(self, progress: Progress, prompts: bool = True) -> None:
        """Nothing to compile."""

    def compile_batches(self, progress: Progress) -> None:
        """Nothing to compile."""

    def compile_batches_behind(self) -> None:
        """Nothing to compile."""

    def batches_ready(self) -> bool:
        """Nothing to compile."""
        return True

    def close(self) -> None:
        """Nothing to give back."""
