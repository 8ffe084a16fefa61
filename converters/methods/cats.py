"""CATS (Lee et al., COLM 2024, arXiv 2404.08763): one threshold on |gate| for each layer."""

from __future__ import annotations

from converters.methods.family import LEVELS, LayerFit, LayerView, Method, positive
from sparity_edge.plans.plan import NEURONS


def _fit(view: LayerView) -> LayerFit:
    taus = positive(view.statistics.sites["gate"].quantiles(LEVELS))
    return LayerFit({NEURONS: taus}, {NEURONS: 1 - LEVELS})


CATS = Method("cats", "CATS: |g| > tau", "ffn", _fit)
