"""WINA (arXiv 2505.19427): the inputs of largest |x_i| |W[:, i]| of every token, for k and gate.

Inputs of q, v, up, o and down are chosen by |x_i| alone, so q, k and v have different channels.
The paper rotates the inputs beforehand, so that columns of W_k and W_gate are orthogonal and the
score is the error; here it is without, as changes of basis cost 2 hidden^2 weights a layer.
"""

from __future__ import annotations

import numpy as np

from converters.methods.family import LayerFit, LayerView, Method, positive
from converters.methods.strategies import top
from sparity_edge.plans.plan import LINEARS

WEIGHED = ("k_proj", "gate_proj")


def _fit(view: LayerView) -> LayerFit:
    norms = {name: np.linalg.norm(view.weights.linear(name), axis=0) for name in WEIGHED}
    return top(LINEARS, {name: positive(each) for name, each in norms.items()})


WINA = Method(
    "wina", "WINA, unrotated: top |x| |W[:, i]| at k and gate", "input", _fit, True, "top"
)
