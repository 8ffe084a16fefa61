"""Program: a model's operations, recorded once and then run by a team of threads.

A call of an operation appends kernels and the addresses of their arrays to a recorder. Sizes and
addresses are fixed by the recording; contents (token ids, the position, activations) are read when
the program runs. Which kernel a product takes is decided here: by how many tokens there are,
whether they decode, and whether they are sparse.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from sparity_edge.arrays import Floats, Integers, Numbers
from sparity_edge.kernels.active_list import ActiveList
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.operations import HeadNorm
from sparity_edge.kernels.program import attention, batch, dense, elementwise, masked, sparse
from sparity_edge.kernels.program.recorder import Recorder
from sparity_edge.kernels.program.screened import screened
from sparity_edge.kernels.screen import Candidates, Screen
from sparity_edge.kernels.sparse.ffn import Bundle
from sparity_edge.kernels.sparse_vector import Selector, SparseVector


class Program:
    """`Operations` (see there for what each one does) that are recorded.

    Args:
        recorder: gets the records.
        decoding: every row is a token of a sequence of its own.
    """

    def __init__(self, recorder: Recorder, decoding: bool = False) -> None:
        self.recorder = recorder
        self._decoding = decoding

    def together(self) -> AbstractContextManager[None]:
        """Operations recorded inside do not wait for each other."""
        return self.recorder.together()

    def embed(self, ids: Integers, table: Matrix, out: Floats) -> None:
        """Rows `ids` of an output-major table."""
        elementwise.embed(self.recorder, ids, table, out)

    def rmsnorm(
        self, x: Floats, weight: Floats, epsilon: float, out: Floats, accumulate: bool = False
    ) -> None:
        """x / sqrt(mean(x**2) + epsilon) * weight (+ out) for every row; the weight is padded."""
        elementwise.rmsnorm(self.recorder, x, weight, epsilon, out, accumulate)

    def linear(
        self,
        x: Floats | SparseVector,
        matrix: Matrix,
        out: Floats,
        bias: Floats | None = None,
        accumulate: bool = False,
    ) -> None:
        """out = x W^T (+ bias) (+ out)."""
        if isinstance(x, SparseVector):
            masked.linear(self.recorder, x, matrix, out, bias, accumulate)
        elif len(x) == 1:
            dense.vmm(self.recorder, x, matrix, out, bias, accumulate)
        elif self._decoding:
            batch.vmm_each(self.recorder, x, matrix, out, bias, accumulate)
        else:
            dense.gemm(self.recorder, x, matrix, out, bias, accumulate)

    def rope(
        self,
        x: Floats,
        table: Floats,
        position: Integers,
        heads: int,
        out: Floats,
        norm: HeadNorm | None = None,
    ) -> None:
        """Rotate the heads of every row by its position, after `norm` if there is one."""
        elementwise.rope(self.recorder, x, table, position, heads, out, norm)

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
        """Write rotated keys and values into the rows of the cache (heads, capacity)."""
        cached = (cached_keys, cached_values)
        attention.append(self.recorder, keys, values, table, position, *cached, norm)

    def attention(
        self,
        q: Floats,
        cached_keys: Numbers,
        cached_values: Numbers,
        position: Integers,
        window: int | None,
        out: Floats,
    ) -> None:
        """Softmax(q K^T / sqrt(head_dim)) V over the positions each row of q may see."""
        attention.attention(self.recorder, q, cached_keys, cached_values, position, window, out)

    def silu_mul(self, gate: Floats, up: Floats, out: Floats) -> None:
        """silu(gate) * up."""
        elementwise.silu_mul(self.recorder, gate, up, out)

    def silu(self, x: Floats, out: Floats) -> None:
        """x / (1 + exp(-x))."""
        elementwise.silu(self.recorder, x, out)

    def relu(self, x: Floats, threshold: float, out: Floats) -> None:
        """x where it is above the threshold, else 0."""
        elementwise.relu(self.recorder, x, threshold, out)

    def scale(self, x: Floats, factor: float, out: Floats) -> None:
        """x * factor."""
        elementwise.scale(self.recorder, x, factor, out)

    def multiply(self, x: Floats, y: Floats, out: Floats) -> None:
        """x * y."""
        elementwise.multiply(self.recorder, x, y, out)

    def sparsify(
        self, x: Floats, selector: Selector, exponents: Floats | None = None
    ) -> SparseVector:
        """Sort the channels of x into active and skipped ones."""
        if len(x) == 1 or self._decoding:
            return masked.sparsify_decoding(self.recorder, x, selector, exponents)
        return masked.sparsify_many(self.recorder, x, selector, exponents)

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
        """out = (gate * (x W_up^T)) W_down^T (+ out), active neurons; up through ReLU or not."""
        more = (out, relu_up, accumulate)
        if len(x) == 1:
            masked.neurons_of_one(self.recorder, x, gate, bundle, *more)
        elif self._decoding:
            masked.neurons_of_each(self.recorder, x, gate, bundle, *more)
        else:
            masked.neurons_of_many(self.recorder, x, gate, bundle, (up, middle), *more)

    def tally(self, vectors: Sequence[SparseVector], out: Integers) -> None:
        """out[i] = sum of the counts of vectors[i]."""
        masked.tally(self.recorder, vectors, out)

    def screened(
        self, x: Floats, matrix: Matrix, screen: Screen, candidates: Candidates, out: Floats
    ) -> None:
        """out = x W^T where it is large or required, and about that elsewhere."""
        screened(self.recorder, x, matrix, screen, candidates, out)

    # --- over lists that the caller has, for tests and benchmarks of single kernels ---------------

    def select_threshold(
        self,
        x: Floats,
        thresholds: Floats,
        out: ActiveList,
        centre: Floats | None = None,
        coefficients: Floats | None = None,
        exponent: Floats | None = None,
    ) -> None:
        """Channels with |x - centre| > threshold (x the factors of threshold_factor.py), or NaN."""
        factors = (coefficients, exponent)
        sparse.select_threshold(self.recorder, x, thresholds, out, centre, *factors)

    def select_top(
        self,
        x: Floats,
        count: Integers,
        out: ActiveList,
        weights: Floats | None = None,
        centre: Floats | None = None,
    ) -> None:
        """The `count` channels of largest |x - centre| * weight."""
        sparse.select_top(self.recorder, x, count, out, weights, centre)

    def select_n_of_m(
        self,
        x: Floats,
        n: int,
        m: int,
        out: ActiveList,
        weights: Floats | None = None,
        centre: Floats | None = None,
    ) -> None:
        """The n channels of largest |x - centre| * weight in each m neighbours."""
        sparse.select_n_of_m(self.recorder, x, n, m, out, weights, centre)

    def vmmsp(
        self,
        x: Floats,
        matrix: Matrix,
        active: ActiveList,
        out: Floats,
        bias: Floats | None = None,
    ) -> None:
        """Active outputs of x W^T (+ bias); the others stay as they are."""
        sparse.vmmsp(self.recorder, x, matrix, active, out, bias)

    def spvmm(
        self,
        x: Floats,
        matrix: Matrix,
        active: ActiveList,
        outs: Sequence[Floats],
        biases: Sequence[Floats | None] | None = None,
        accumulate: bool = False,
    ) -> None:
        """x W^T over active inputs (+ bias) (+ outs), W stacked of as many matrices as `outs`."""
        sparse.spvmm(self.recorder, x, matrix, active, outs, biases, accumulate)

    def ffn(
        self,
        x: Floats,
        gate: Floats,
        bundle: Bundle,
        active: ActiveList,
        out: Floats,
        centre: Floats | None = None,
        accumulate: bool = False,
    ) -> None:
        """Sum over active i of (gate_i - centre_i) (up_i . x) down_i (+ out)."""
        sparse.ffn(self.recorder, x, gate, bundle, active, out, centre, accumulate)
