"""The score of WiSparse (arXiv 2602.14452): |x_i| |W[:, i]|^a > tau, the exponent a by site.

Of the exponents 0, 1/2 and 1 each site of each layer takes the one whose dropped inputs, half of
all, change the outputs of its linears least over sampled tokens. Thresholds are static. The paper
also searches budgets of blocks; here every site drops the level's share.
"""

from __future__ import annotations

import numpy as np

from converters.calibration.histograms import Array
from converters.methods.family import LEVELS, LayerFit, LayerView, Method, positive
from converters.methods.strategies import TOGETHER, column_norms
from sparity_edge.plans.plan import LINEARS, SITES

EXPONENTS = (0.0, 0.5, 1.0)
TOKENS = 128  # of those sampled, on which exponents are compared
AT = 0.5


def _fit(view: LayerView) -> LayerFit:
    taus: dict[str, Array] = {}
    weights: dict[str, Array] = {}
    candidates = [column_norms(view, exponent) for exponent in EXPONENTS]
    for group in TOGETHER:
        x = view.statistics.sampled[SITES[group[0]]]
        stacked = np.concatenate([view.weights.linear(name) for name in group])
        few = x[:: max(1, len(x) // TOKENS)]
        errors = [output_error(few, stacked, each[group[0]]) for each in candidates]
        norms = candidates[int(np.argmin(errors))][group[0]]
        weights |= dict.fromkeys(group, norms)
        taus |= dict.fromkeys(group, positive(np.quantile(np.abs(x) * norms, LEVELS)))
    return LayerFit(taus, dict.fromkeys(LINEARS, 1 - LEVELS), weights)


def output_error(x: Array, matrix: Array, weights: Array) -> float:
    """Sum of squares of W (what is dropped of x), the share AT of smallest |x| * weight."""
    scores = np.abs(x) * weights
    dropped = x * (scores <= np.quantile(scores, AT))
    return float(np.square(dropped @ matrix.T, dtype=np.float64).sum())


WISPARSE = Method("wisparse", "|x| |W[:, i]|^a > tau, a by site", "input", _fit, True)
