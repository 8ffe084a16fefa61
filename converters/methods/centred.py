"""Centred gates (ours): a neuron is skipped where its gate is near a constant, not near zero.

SiLU gates crowd around a negative constant c_i, so what a skipped neuron leaves out is made
(g_i - c_i) u_i, and the rest is one matrix for all of them:

    y = M x + sum over active i of (g_i - c_i) u_i W_down[:, i],    M = W_down diag(c) W_up

Active is |g_i - c_i| E|u_i| > tau. The centre is E[g u^2] / E[u^2] over the tokens that skip the
neuron, which depends on tau: both are found alternately, at one level, and c then serves the
whole dial.
"""

from __future__ import annotations

import numpy as np

from converters.calibration.histograms import Array
from converters.methods.family import LayerFit, LayerView, Method, neurons, positive
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.errors import OptionError

CENTRE_LEVEL = 0.7
ROUNDS = 3


def _fit(view: LayerView) -> LayerFit:
    if view.weights.has_up_bias:
        raise OptionError(
            "Centred gates do not run models whose up_proj has a bias; calibrate with another of "
            "--methods."
        )
    weights = positive(view.statistics.neurons.up_absolute)
    centre = centres(view, weights, CENTRE_LEVEL)
    mean = view.weights.packed_folded(folded(view.weights.up, view.weights.down, centre))
    return neurons(view, weights, centre, mean)


def centres(view: LayerView, weights: Array, level: float) -> Array:
    """c_i, (neurons,) float32, for tokens skipped at `level`."""
    statistics = view.statistics.neurons
    centre = statistics.centre_of_skipped(None, np.zeros(statistics.neurons))
    for _ in range(ROUNDS):
        tau = statistics.quantiles(weights, np.array([level]), centre)[0]
        centre = statistics.centre_of_skipped(tau / weights, centre)
    return centre.astype(np.float32)


def folded(up: Array, down: Array, centre: Array) -> Array:
    """W_down diag(c) W_up, (hidden, hidden) float64."""
    product: Array = (down * centre.astype(np.float64)) @ up.astype(np.float64)
    return product


def _unsuited(config: ModelConfig) -> str | None:
    if not config.activation.zeroes:
        return None
    return (
        f"Centred gates are for SiLU. Gates of {config.activation} that are zero are skipped "
        "without a plan, and chess skips small ones; calibrate with another of --methods."
    )


CENTRED = Method(
    "centred", "centred gates: |g - c| E|u| > tau, M = W_down c W_up", "ffn", _fit,
    unsuited=_unsuited,
)  # fmt: skip
