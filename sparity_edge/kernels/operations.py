"""Operations: the vocabulary a model is written in, and the machines that carry it out.

A model calls operations on arrays; whether they are computed at once (`reference`) or recorded for
a team of threads (`program`) is the machine's affair. Arrays of activations are (tokens, size)
float32 from `buffers.rows`, all of whose rows are followed by zeros. Imports no Numba.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sparity_edge.kernels.buffers import Floats, Numbers
from sparity_edge.layout import PackedMatrix
from sparity_edge.progress import Progress

Integers = npt.NDArray[np.int64]
Matrix = Any  # whatever `Machine.matrix` returned


class Operations(Protocol):
    """What a decoder block is made of. Every result goes to the array named `out`."""

    def together(self) -> AbstractContextManager[None]:
        """Operations inside may run side by side: none reads what another writes."""

    def embed(self, ids: Integers, table: Matrix, out: Floats) -> None:
        """Rows `ids` (tokens,) of an output-major table."""

    def rmsnorm(self, x: Floats, weight: Floats, epsilon: float, out: Floats) -> None:
        """x / sqrt(mean(x**2) + epsilon) * weight for every row (Zhang and Sennrich, 2019)."""

    def linear(
        self,
        x: Floats,
        matrix: Matrix,
        out: Floats,
        bias: Floats | None = None,
        accumulate: bool = False,
    ) -> None:
        """x W^T, plus `bias` if there is one, plus what `out` holds if `accumulate`."""

    def rope(self, x: Floats, table: Floats, position: Integers, heads: int, out: Floats) -> None:
        """Rotate the pairs (i, i + head_dim / 2) of each head by the row's position.

        Args:
            table: (positions, head_dim), cosines in the first half of a row, sines in the second.
            position: (1,), of the first row.
        """

    def append(
        self,
        keys: Floats,
        values: Floats,
        table: Floats,
        position: Integers,
        cached_keys: Numbers,
        cached_values: Numbers,
    ) -> None:
        """Write rotated keys and plain values into the cache, rounded to what its rows hold.

        Args:
            cached_keys, cached_values: (kv_heads, capacity) rows as `cached.empty_rows` makes them.
        """

    def attention(
        self,
        q: Floats,
        cached_keys: Numbers,
        cached_values: Numbers,
        position: Integers,
        window: int | None,
        out: Floats,
    ) -> None:
        """softmax(q K^T / sqrt(head_dim)) V over the last `window` positions, its own too."""

    def silu_mul(self, gate: Floats, up: Floats, out: Floats) -> None:
        """silu(gate) * up, the middle of the FFN; `out` may be `gate`."""


class Machine(Protocol):
    """Carries out operations."""

    threads: int

    def matrix(self, packed: PackedMatrix) -> Matrix:
        """What operations take as a matrix."""

    def prepare(self, forward: Callable[[Operations], None]) -> Callable[[bool], None]:
        """Make `forward` runnable again and again while the arrays it names stay in place.

        Returns:
            A function that runs it; called with True where the run may take long, so that it can be
            interrupted.
        """

    def compile(self, progress: Progress) -> None:
        """Get machine code ready, telling how far it is."""

    def close(self) -> None:
        """Give threads back."""
