"""BoundLayer: a decoder layer while it is recorded, with operations, weights and plan in one hand.

The decoder asks it for `sparsify`, `linear` and `gains` by the names of the checkpoint; whether a
plan applies, which pieces share a sparse vector and what a bias has to take up are settled here.
`SparsityRecord` keeps the books over all layers of one recording.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from sparity_edge.arrays import Floats
from sparity_edge.kernels.operations import Matrix, Operations
from sparity_edge.kernels.sparse_vector import SparseVector
from sparity_edge.model.applied_plan import AppliedPlan, Reader
from sparity_edge.model.buffers import Buffers
from sparity_edge.model.layer import LayerWeights


class SparsityRecord:
    """Which sparse vectors one recording of the forward pass has made, and for which pieces.

    Args:
        ops: what records.
        this: the arrays of the pass.
        plan: which channels are skipped; None: none.
    """

    def __init__(self, ops: Operations, this: Buffers, plan: AppliedPlan | None = None) -> None:
        self.plan = plan
        self._ops = ops
        self.this = this
        self._vectors: dict[int, SparseVector] = {}  # by the identity of their selector
        self._used: list[tuple[int, str]] = []  # (layer, piece)
        self._active: list[SparseVector] = []  # of each of `_used`

    def sparsify(self, layer: int, piece: str, x: Floats) -> Floats | SparseVector:
        """x with the channels that the plan leaves active; pieces of one selector share it."""
        selector = None if self.plan is None else self.plan.selector(layer, piece)
        if selector is None:
            return x
        if id(selector) not in self._vectors:
            column = selector.column
            exponents = None if column is None else self.this.exponents[:, column : column + 1]
            self._vectors[id(selector)] = self._ops.sparsify(x, selector, exponents)
        self._used.append((layer, piece))
        self._active.append(self._vectors[id(selector)])
        return self._active[-1]

    def gains(self, layer: int, half: int, h: Floats) -> None:
        """The exponents of the plan's gains in half a layer, of its normalised input h."""
        gains = None if self.plan is None else self.plan.gains(layer, half)
        if gains is not None:
            matrix, offsets = gains
            self._ops.linear(h, matrix, self.this.exponents[:, : len(offsets)], offsets)

    def tally(self) -> Reader | None:
        """Have the pass count its active channels; after its last layer."""
        if self.plan is None:
            return None
        reader = self.plan.reader(self._used, self._active)
        self._ops.tally(reader.vectors, reader.tallies)
        return reader


class BoundLayer:
    """One layer of one recording.

    Args:
        ops: what records.
        weights: of the layer.
        record: of the recording.
    """

    def __init__(self, ops: Operations, weights: LayerWeights, record: SparsityRecord) -> None:
        self.ops = ops
        self.weights = weights
        self._record = record

    @property
    def folded(self) -> Matrix | None:
        """The matrix of what skipped neurons give on average, where the plan has one."""
        plan = self._record.plan
        return None if plan is None else plan.means[self.weights.index]

    def sparsify(self, piece: str, x: Floats) -> Floats | SparseVector:
        """What the plan leaves active of x, the input of `piece`; x itself where it has no rule."""
        return self._record.sparsify(self.weights.index, piece, x)

    def gains(self, half: int, h: Floats) -> None:
        """What half of the layer (`ATTENTION` or `FFN`) needs of h before it can sparsify."""
        self._record.gains(self.weights.index, half, h)

    def linear(
        self, name: str, x: Floats | SparseVector, out: Floats, *, accumulate: bool = False
    ) -> None:
        """out = x W^T plus the bias if there is one, plus what `out` holds if `accumulate`.

        Of a LoRA adapter beside W the first half is done, of all of x; `adapt` does the other.

        Args:
            name: of the linear: "q_proj" ... "down_proj".
            x: (tokens, inputs).
            out: (tokens, outputs).
            accumulate: add to `out`.
        """
        linear, plan = self.weights.linears[name], self._record.plan
        bias = linear.bias if plan is None else plan.bias(self.weights.index, name)
        self.ops.linear(x, linear.matrix, out, bias, accumulate)
        if (low := linear.low_rank) is not None:
            whole = x.x if isinstance(x, SparseVector) else x
            self.ops.linear(whole, low.a, self._record.this.low_rank(name, low.rank))

    def beside_adapter(self, name: str) -> AbstractContextManager[None]:
        """Have what `linear` does for a single linear run side by side where it is two products."""
        low = self.weights.linears[name].low_rank
        return nullcontext() if low is None else self.ops.together()

    def adapt(self, **outs: Floats) -> None:
        """Add what LoRA adapters give to the outputs of linears, after `linear` has been recorded.

        Args:
            outs: by linear.
        """
        found = [(name, self.weights.linears[name].low_rank, out) for name, out in outs.items()]
        if not any(low for _, low, _ in found):
            return
        with self.ops.together():
            for name, low, out in found:
                if low is not None:
                    x = self._record.this.low_rank(name, low.rank)
                    self.ops.linear(x, low.b, out, accumulate=True)
