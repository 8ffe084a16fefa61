"""CHESS (He et al., EMNLP 2024, arXiv 2409.01366): a threshold for each neuron's gate.

Neuron i is active where |g_i| E|u_i| > tau, i.e. |g_i| > t_i = tau / E|u_i|, tau being a quantile
over all neurons of a layer. The first release had g_i^2 E[u_i^2] instead, which `chess-second` is.
With attention, q and o read only inputs above a scalar threshold; k, v and the gate stay dense.
"""

from __future__ import annotations

import numpy as np

from converters.methods.family import LayerFit, LayerView, Method, join, neurons, scalar


def _absolute(view: LayerView) -> LayerFit:
    return neurons(view, view.statistics.neurons.up_absolute)


def _second(view: LayerView) -> LayerFit:
    # g^2 M > tau is |g| sqrt(M) > sqrt(tau).
    return neurons(view, np.sqrt(view.statistics.neurons.up_square))


def _with_down(view: LayerView) -> LayerFit:
    norms = np.linalg.norm(view.weights.down, axis=0)
    return neurons(view, view.statistics.neurons.up_absolute * norms)


def _with_attention(view: LayerView) -> LayerFit:
    return join(_absolute(view), scalar(view, {"q_proj": 1.0, "o_proj": 1.0}))


CHESS = (
    Method("chess", "CHESS with q and o: |g| E|u| > tau", "neurons", _with_attention),
    Method("chess-ffn", "CHESS without attention: |g| E|u| > tau", "ffn", _absolute),
    Method("chess-second", "CHESS, first release: g^2 E[u^2] > tau", "ffn", _second),
    Method("chess-down", "CHESS with down norms: |g| E|u| |W_down| > tau", "ffn", _with_down),
)
