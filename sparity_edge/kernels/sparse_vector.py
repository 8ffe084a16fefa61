"""SparseVector: a vector and which of its channels are active.

What decides is the `Selector` of a plan for one vector of one layer, its arrays padded for kernels.
Imports no Numba: the model prepares selectors, machines make and take sparse vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparity_edge.arrays import Floats, Integers, padded
from sparity_edge.kernels.active_list import ActiveList
from sparity_edge.plans.plan import NEIGHBOURS, SelectionRule

# Of thresholds, by rule `scaled`: the largest factor, whose inverse is the smallest, and what
# stands for a vector's size where that is nothing, whose logarithm is not finite.
LARGEST_FACTOR = 4.0
FLOOR = 1e-30
LARGEST_EXPONENT = 1.0  # of a gain


@dataclass(frozen=True)
class Selector:
    """Which channels are active: |x - centre| > thresholds, or the `kept` largest * weights.

    The largest of all, or of each `neighbours` channels. With coefficients, thresholds are
    multiplied by a factor that depends on the vector, with a column by one that depends on the
    input of the half of the layer (sparse/threshold_factor.py).
    """

    thresholds: Floats | None
    kept: Integers | None  # (1,)
    weights: Floats | None
    centre: Floats | None
    coefficients: Floats | None = None  # (4,)
    column: int | None = None  # among the gains of its half of the layer
    exact: bool = False  # whether all that it leaves out is zero
    neighbours: int | None = None  # M of N:M

    @classmethod
    def of(cls, rule: SelectionRule, channels: int, column: int | None = None) -> Selector:
        """The selector that a plan describes, for a vector of so many channels."""
        centre = None if rule.centre is None else padded(rule.centre)
        if not rule.by_share:
            predictor = rule.predictor
            coefficients = None if predictor is None else padded(predictor)
            thresholds = padded(rule.thresholds(channels))
            exact = rule.value == 0 and centre is None
            return cls(thresholds, None, None, centre, coefficients, column, exact)
        weights = None if rule.weights is None else padded(rule.weights)
        kept = np.array([rule.kept(channels)], dtype=np.int64)
        return cls(None, kept, weights, centre, neighbours=NEIGHBOURS.get(rule.rule))


@dataclass(frozen=True)
class SparseVector:
    """A vector and its active channels.

    Tokens of a prompt have `values` with zeros in place of all that is skipped. One token that is
    decoded has a list of channels, and several have one each.
    """

    x: Floats  # (tokens, size), as it was
    centre: Floats | None
    counts: Integers  # (tokens,): how many channels are active
    active: ActiveList | None = None  # of one token; of several (tokens, words), a list a row
    values: Floats | None = None  # (tokens, size): x - centre or zero
    exact: bool = False  # whether all that is not active is zero
