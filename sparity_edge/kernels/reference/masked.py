"""The NumPy twins of the operations on sparse vectors; see `program`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sparity_edge.arrays import Floats, Integers
from sparity_edge.kernels.reference.sparse import SparseReference, UpDown, factors, factors_of_gain
from sparity_edge.kernels.sparse_vector import MOST_LISTED, Selector, SparseVector


class ThinReference(SparseReference):
    """What `Reference` adds for plans."""

    linear: Callable[..., None]
    _decoding: bool

    def silu(self, x: Floats, out: Floats) -> None:
        """x / (1 + exp(-x))."""
        with np.errstate(over="ignore"):
            out[:] = x / (1 + np.exp(-x))

    def sparsify(
        self, x: Floats, selector: Selector, exponents: Floats | None = None
    ) -> SparseVector:
        """x - centre with zeros in place of what is skipped."""
        values = x.copy() if selector.centre is None else x - selector.centre
        if selector.kept is not None:
            scores = np.abs(values if selector.weights is None else values * selector.weights)
            scores[np.isnan(scores)] = np.inf
            order = np.argsort(-scores, axis=1, kind="stable")
            dropped = np.ones(values.shape, dtype=bool)
            np.put_along_axis(dropped, order[:, : int(selector.kept[0])], values=False, axis=1)
        else:
            assert selector.thresholds is not None
            thresholds = selector.thresholds
            if selector.coefficients is not None:
                thresholds = thresholds * factors(values, selector.coefficients)
            if exponents is not None:
                thresholds = thresholds * factors_of_gain(exponents)
            dropped = np.abs(values) <= thresholds
        values[dropped] = 0
        counts = np.count_nonzero(~dropped, axis=1).astype(np.int64)
        if self._decoding and len(x) > 1:
            union = np.count_nonzero(values.any(axis=0))
            most = int(MOST_LISTED * values.shape[1])
            counts = np.array([values.shape[1] if union > most else union])
        return SparseVector(x, selector.centre, counts, values=values)

    def neurons(
        self,
        x: Floats,
        gate: Floats | SparseVector,
        bundle: UpDown,
        up: Floats,
        middle: Floats,
        out: Floats,
    ) -> None:
        """out += (gate * (x W_up^T)) W_down^T."""
        values = gate if isinstance(gate, np.ndarray) else gate.values
        assert values is not None
        self.linear(x, bundle[0], up)
        middle[:] = values * up
        self.linear(middle, bundle[1], out, accumulate=True)

    def tally(self, vectors: Sequence[SparseVector], out: Integers) -> None:
        """out[i] = sum of the counts of vectors[i]."""
        for index, each in enumerate(vectors):
            out[index] = each.counts.sum()
