"""The NumPy twins of the operations on thinned vectors; see `program_thin`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sparity_edge.arrays import Floats, Integers
from sparity_edge.kernels.reference.sparse import SparseReference, UpDown, factors, factors_of_gain
from sparity_edge.kernels.sparse_vector import MOST_LISTED, Choice, Thinned


class ThinReference(SparseReference):
    """What `Reference` adds for plans."""

    linear: Callable[..., None]
    _decoding: bool

    def silu(self, x: Floats, out: Floats) -> None:
        """x / (1 + exp(-x))."""
        with np.errstate(over="ignore"):
            out[:] = x / (1 + np.exp(-x))

    def thin(self, x: Floats, choice: Choice, exponents: Floats | None = None) -> Thinned:
        """x - centre with zeros in place of what is skipped."""
        values = x.copy() if choice.centre is None else x - choice.centre
        if choice.kept is not None:
            scores = np.abs(values if choice.weights is None else values * choice.weights)
            scores[np.isnan(scores)] = np.inf
            order = np.argsort(-scores, axis=1, kind="stable")
            dropped = np.ones(values.shape, dtype=bool)
            np.put_along_axis(dropped, order[:, : int(choice.kept[0])], values=False, axis=1)
        else:
            assert choice.thresholds is not None
            thresholds = choice.thresholds
            if choice.coefficients is not None:
                thresholds = thresholds * factors(values, choice.coefficients)
            if exponents is not None:
                thresholds = thresholds * factors_of_gain(exponents)
            dropped = np.abs(values) <= thresholds
        values[dropped] = 0
        counts = np.count_nonzero(~dropped, axis=1).astype(np.int64)
        if self._decoding and len(x) > 1:
            union = np.count_nonzero(values.any(axis=0))
            most = int(MOST_LISTED * values.shape[1])
            counts = np.array([values.shape[1] if union > most else union])
        return Thinned(x, choice.centre, counts, values=values)

    def neurons(
        self,
        x: Floats,
        gate: Floats | Thinned,
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

    def tally(self, thinned: Sequence[Thinned], out: Integers) -> None:
        """out[i] = sum of the counts of thinned[i]."""
        for index, each in enumerate(thinned):
            out[index] = each.counts.sum()
