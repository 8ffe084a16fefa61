"""TEAL (Liu et al., ICLR 2025, arXiv 2408.14690): a scalar threshold on the input of every linear.

Uniform: every linear drops the same share. Profile: a fixed pattern that leaves inputs of up and v
denser and those of o and q sparser, the mean of the tables that the authors' greedy search gave for
Llama-3-8B at 50 %; the level is then the mean weighted by bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from converters.calibration.histograms import Array
from converters.methods.family import LEVELS, LayerFit, LayerView, Method, scalar
from sparity_edge.plans.plan import LINEARS

PROFILE = {
    "q_proj": 0.59,
    "k_proj": 0.43,
    "v_proj": 0.36,
    "o_proj": 0.62,
    "gate_proj": 0.51,
    "up_proj": 0.40,
    "down_proj": 0.54,
}
MOST = 0.97  # of a linear's inputs that may be dropped


def _uniform(view: LayerView) -> LayerFit:
    return scalar(view, dict.fromkeys(LINEARS, 1.0))


def _profile(view: LayerView) -> LayerFit:
    shapes = view.weights.shapes
    return scalar(view, profiled({name: shapes[name][0] * shapes[name][1] for name in LINEARS}))


def profiled(sizes: Mapping[str, int], profile: Mapping[str, float] = PROFILE) -> dict[str, Array]:
    """Rates (levels,) by linear, as in `profile`, whose mean, weighted by `sizes`, is the level."""
    shares = np.array(list(sizes.values()), dtype=np.float64)
    shares /= shares.sum()
    pattern = np.array([profile[name] for name in sizes])
    rates = np.zeros((len(LEVELS), len(sizes)))
    for row, level in zip(rates, LEVELS, strict=True):
        factor = 0.0
        for _ in range(30):  # what the ceiling cuts off, the others take over
            row[:] = np.minimum(factor * pattern, MOST)
            factor += float((level - row @ shares) / (pattern @ shares))
    return {name: rates[:, index] for index, name in enumerate(sizes)}


TEAL = (
    Method("teal", "TEAL, uniform: |x| > tau at every linear", "input", _uniform),
    Method("teal-profile", "TEAL, fixed profile over the linears", "input", _profile),
)
