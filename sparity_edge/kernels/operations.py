"""Operations: the vocabulary a model is written in.

A model calls operations on arrays; whether they are computed at once (`reference`) or recorded for
a team of threads (`program`) is the affair of a `machines.Machine`. Arrays of activations are
(tokens, size) float32 from `arrays.rows`, all of whose rows are followed by zeros. Imports no
Numba.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from sparity_edge.arrays import Floats, Integers, Numbers
from sparity_edge.kernels.elementwise_operations import ElementwiseOperations
from sparity_edge.kernels.screen import Candidates, Screen
from sparity_edge.kernels.sparse_vector import Selector, SparseVector

Matrix = Any  # whatever `Machine.matrix` returned
Bundle = Any  # whatever `Machine.bundle` returned


class HeadNorm(NamedTuple):
    """RMSNorm over the numbers of one head."""

    weight: Floats  # (head_dim,)
    epsilon: float  # added to the mean square


class Operations(ElementwiseOperations, Protocol):
    """What a decoder layer is made of. Every result goes to the array named `out`.

    Activations are (tokens, size) float32 of `arrays.rows`. The examples run on `Reference`, as
    `ops`.
    """

    def together(self) -> AbstractContextManager[None]:
        """Let operations inside run side by side, without a barrier between them.

        Returns:
            A context in which no operation reads what another one writes.

        Example:
            >>> with ops.together():
            ...     ops.silu(rows(1, 4), rows(1, 4))
        """

    def embed(self, ids: Integers, table: Matrix, out: Floats) -> None:
        """Look rows of the embedding up.

        Args:
            ids: (tokens,) int64, token ids.
            table: (vocab_size, hidden), output-major.
            out: (tokens, hidden).

        Example:
            >>> table, out = np.float32([[1, 2], [3, 4]]), rows(1, 2)
            >>> ops.embed(np.array([1]), table, out)
            >>> out.tolist()
            [[3.0, 4.0]]
        """

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

        Args:
            x: (tokens, inputs).
            matrix: W, (outputs, inputs), in any packed format.
            out: (tokens, outputs).
            bias: (outputs,).
            accumulate: whether the product is added to `out`.

        Example:
            >>> out = rows(1, 2)
            >>> ops.linear(np.float32([[1, 2]]), np.float32([[1, 1], [0, 3]]), out)
            >>> out.tolist()
            [[3.0, 6.0]]
        """

    def rope(
        self,
        x: Floats,
        table: Floats,
        position: Integers,
        heads: int,
        out: Floats,
        norm: HeadNorm | None = None,
    ) -> None:
        """Rotate the pairs (i, i + head_dim / 2) of each head by the row's position.

        Args:
            x: (tokens, heads * head_dim).
            table: (positions, head_dim), cosines in the first half of a row, sines in the second.
            position: (1,) int64, of the first row.
            heads: of queries or keys.
            out: (tokens, heads * head_dim); may be `x`.
            norm: RMSNorm that each head goes through first.

        Example:
            >>> out, quarter_turn = rows(1, 2), np.float32([[0, 1]])
            >>> ops.rope(np.float32([[3, 4]]), quarter_turn, np.array([0]), 1, out)
            >>> out.tolist()
            [[-4.0, 3.0]]
        """

    def append(
        self,
        keys: Floats,
        values: Floats,
        table: Floats,
        position: Integers,
        cached_keys: Numbers,
        cached_values: Numbers,
        norm: HeadNorm | None = None,
    ) -> None:
        """Write rotated keys and plain values into the KV cache, rounded to what its rows hold.

        Args:
            keys, values: (tokens, kv_heads * head_dim).
            table: (positions, head_dim), as of `rope`.
            position: (1,) int64, of the first row.
            cached_keys, cached_values: (kv_heads, capacity) rows of `kv_format.empty_rows`.
            norm: RMSNorm that each head of the keys goes through before it is rotated.

        Example:
            >>> cached = [empty_rows("f32", (1, 4), 2) for _ in range(2)]
            >>> x, straight = np.float32([[3, 4]]), np.float32([[1, 0]])
            >>> ops.append(x, x, straight, np.array([0]), *cached)
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
        """softmax(q K^T / sqrt(head_dim)) V, causal, over the last `window` positions.

        Args:
            q: (tokens, heads * head_dim), rotated.
            cached_keys, cached_values: (kv_heads, capacity) rows; those of q are appended already.
            position: (1,) int64, of the first row.
            window: positions that a query sees, its own included; None: all up to its own.
            out: (tokens, heads * head_dim).

        Example:
            >>> cached, out = [empty_rows("f32", (1, 4), 2) for _ in range(2)], rows(1, 2)
            >>> x, straight, first = np.float32([[3, 4]]), np.float32([[1, 0]]), np.array([0])
            >>> ops.append(x, x, straight, first, *cached)
            >>> ops.attention(x, *cached, first, None, out)
            >>> out.tolist()
            [[3.0, 4.0]]
        """

    def sparsify(
        self, x: Floats, selector: Selector, exponents: Floats | None = None
    ) -> SparseVector:
        """Select the active channels of every row.

        Args:
            x: (tokens, size).
            selector: thresholds, or how many channels are kept.
            exponents: (tokens, 1), of a gain: thresholds are multiplied by exp(-exponent).

        Returns:
            The sparse vector; its arrays are those of this recording.

        Example:
            >>> selector = Selector(np.float32([1, 1, 1]), None, None, None)
            >>> ops.sparsify(np.float32([[0.5, -2, 3]]), selector).values.tolist()
            [[0.0, -2.0, 3.0]]
        """

    def neurons(
        self,
        x: Floats,
        gate: Floats | SparseVector,
        bundle: Bundle,
        up: Floats,
        middle: Floats,
        out: Floats,
        relu_up: bool = False,
        accumulate: bool = True,
    ) -> None:
        """Add (gate * (x W_up^T)) W_down^T over active neurons to `out`.

        Where a sparse gate leaves out zeros only (`SparseVector.exact`), the sum has the bits that
        it has over all neurons.

        Args:
            x: (tokens, hidden).
            gate: (tokens, neurons), after SiLU; a sparse one is less its centre.
            bundle: up and down.
            up, middle: (tokens, neurons), memory for several tokens; may be one array.
            out: (tokens, hidden).
            relu_up: whether x W_up^T goes through ReLU (dReLU).
            accumulate: whether what `out` holds stays part of it.

        Example:
            >>> bundle, out = (np.float32([[1, 1]]), np.float32([[1], [2]])), rows(1, 2)
            >>> ops.neurons(np.float32([[3, 4]]), np.float32([[2]]), bundle, *[rows(1, 1)] * 2, out)
            >>> out.tolist()
            [[14.0, 28.0]]
        """

    def tally(self, vectors: Sequence[SparseVector], out: Integers) -> None:
        """Sum the numbers of active channels: out[i] = sum of the counts of vectors[i].

        Args:
            vectors: what was sparsified.
            out: (vectors,) int64.

        Example:
            >>> selector = Selector(np.float32([1, 1, 1]), None, None, None)
            >>> out = np.zeros(1, dtype=np.int64)
            >>> ops.tally([ops.sparsify(np.float32([[0.5, -2, 3]]), selector)], out)
            >>> out.tolist()
            [2]
        """

    def screened(
        self, x: Floats, matrix: Matrix, screen: Screen, candidates: Candidates, out: Floats
    ) -> None:
        """x W^T where it is large or required, and about that elsewhere.

        Args:
            x: (1, inputs).
            matrix: W, (outputs, inputs), output-major.
            screen: its coarse copy, as `Machine.screen` gives it.
            candidates: how many of the best outputs are wanted, and which ones in any case; holds
                those that were computed afterwards.
            out: (1, outputs).

        Example:
            >>> w = np.float32([[30, 0], [1, 1], [0, 1], [2, 0]])
            >>> out, asked = rows(1, 4), Candidates(4, 1)
            >>> asked.ask(1, np.array([2]))
            >>> coarse = Screen(np.float32([[1, 0]]), w[:, :1], np.ones(16, np.uint8))
            >>> ops.screened(np.float32([[2, 0.5]]), w, coarse, asked, out)
            >>> channels(asked.found).tolist(), out.tolist()
            ([0, 2, 3], [[60.0, 2.0, 0.5, 4.0]])
        """
