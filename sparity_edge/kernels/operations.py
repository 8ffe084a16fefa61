"""Operations: the vocabulary a model is written in, and the machines that carry it out.

A model calls operations on arrays; whether they are computed at once (`reference`) or recorded for
a team of threads (`program`) is the machine's affair. Arrays of activations are (tokens, size)
float32 from `buffers.rows`, all of whose rows are followed by zeros. Imports no Numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sparity_edge.arrays import Floats, Integers, Numbers
from sparity_edge.kernels.sparse_vector import Selector, SparseVector
from sparity_edge.packed.bundle import PackedBundle
from sparity_edge.packed.layout import PackedMatrix
from sparity_edge.progress import Progress

Matrix = Any  # whatever `Machine.matrix` returned
Bundle = Any  # whatever `Machine.bundle` returned


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
        x: Floats | SparseVector,
        matrix: Matrix,
        out: Floats,
        bias: Floats | None = None,
        accumulate: bool = False,
    ) -> None:
        """x W^T, plus `bias` if there is one, plus what `out` holds if `accumulate`.

        Of a sparse x only active channels count, less their centre; while decoding, those that are
        active in no row are not read, if the matrix is input-major.
        """

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
        """silu(gate) * up, the middle of the FFN; `out` may be one of the two."""

    def silu(self, x: Floats, out: Floats) -> None:
        """x / (1 + exp(-x)); `out` may be `x`."""

    def sparsify(
        self, x: Floats, selector: Selector, exponents: Floats | None = None
    ) -> SparseVector:
        """x with its channels sorted into active and skipped ones, row by row.

        Args:
            exponents: (tokens, 1), of a gain: thresholds are multiplied by exp(-exponent).
        """

    def neurons(
        self,
        x: Floats,
        gate: Floats | SparseVector,
        bundle: Bundle,
        up: Floats,
        middle: Floats,
        out: Floats,
    ) -> None:
        """Add (gate * (x W_up^T)) W_down^T over active neurons; a sparse gate is less its centre.

        `up` and `middle` are memory for several tokens, and may be the same.
        """

    def tally(self, vectors: Sequence[SparseVector], out: Integers) -> None:
        """out[i] = sum of the counts of vectors[i]."""


class Machine(Protocol):
    """Carries out operations."""

    threads: int

    def matrix(self, packed: PackedMatrix) -> Matrix:
        """What operations take as a matrix."""

    def bundle(self, packed: PackedBundle) -> Bundle:
        """What `neurons` takes as a bundle."""

    def prepare(
        self, forward: Callable[[Operations], None], decoding: bool = False
    ) -> Callable[[bool], None]:
        """Make `forward` runnable again and again while the arrays it names stay in place.

        Args:
            forward: calls operations.
            decoding: every row is the next token of a sequence of its own, so that reading weights
                is what costs: each is read once for all rows, and not if no row needs it.

        Returns:
            A function that runs it; called with True where the run may take long, so that it can be
            interrupted.
        """

    def compile(self, progress: Progress) -> None:
        """Get machine code ready, telling how far it is."""

    def close(self) -> None:
        """Give threads back."""
