"""SCAP (arXiv 2412.07174): inputs of the FFN near their mode count as the mode, W mode is a bias.

Input i of gate, up and down is active where |x_i - mode| > tau; the mode is one number for each
site, here the median (the authors offer it, 0 and the peak of a density estimate, and set 0 for
Llama-2 and Mistral). Down drops more than gate and up, 55 to 35, as in their settings for Llama-2.
"""

from __future__ import annotations

import numpy as np

from converters.methods.family import LayerFit, LayerView, Method, positive
from converters.methods.teal import profiled
from sparity_edge.plans.plan import SITES

PATTERN = {"gate_proj": 0.35, "up_proj": 0.35, "down_proj": 0.55}


def _fit(view: LayerView) -> LayerFit:
    shapes = view.weights.shapes
    rates = profiled({name: shapes[name][0] * shapes[name][1] for name in PATTERN}, PATTERN)
    taus, centres = {}, {}
    for name in PATTERN:
        x = view.statistics.sampled[SITES[name]]
        mode = np.median(x)
        taus[name] = positive(np.quantile(np.abs(x - mode), rates[name]))
        centres[name] = np.full(x.shape[1], mode)
    kept = {name: 1 - each for name, each in rates.items()}
    return LayerFit(taus, kept, centres=centres)


SCAP = Method("scap", "SCAP: |x - mode| > tau at gate, up and down", "input", _fit, slow=True)
