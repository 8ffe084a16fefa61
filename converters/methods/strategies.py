"""The three strategies of this project alone, in pairs and together, on CHESS and on TEAL.

1: the share dropped is the same for every token (top-k of its scores) or a predictor moves the
thresholds (predictor.py). 2: the score times a power of the outgoing weights' norm. 3: rates that
differ by layer (allocate/layers.py). Here are the methods that the ablation compares; they are made
only when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from converters.allocate.layers import by_rank, layer_rates, logarithmic
from converters.allocate.price import Spec, skippable_bytes
from converters.calibration.histograms import Array
from converters.methods.family import LEVELS, LayerFit, LayerView, Method, neurons, positive
from converters.methods.predictor import PREDICTED
from sparity_edge.plans.plan import LINEARS, NEURONS

Shape = Callable[[Sequence[LayerFit]], Array]
# Linears that read one vector, and so share its active channels: the norm is of all their columns.
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))


def top(pieces: Sequence[str], weights: Mapping[str, Array] | None = None) -> LayerFit:
    """Rule `top`: an equal share of each token's channels is dropped, by smallest |x| * weight."""
    shares, kept = dict.fromkeys(pieces, LEVELS), dict.fromkeys(pieces, 1 - LEVELS)
    return LayerFit(shares, kept, weights or {})


def chess_weights(view: LayerView, exponent: float) -> Array:
    """E|u| |W_down|^exponent of each neuron."""
    norms = np.linalg.norm(view.weights.down, axis=0)
    return positive(view.statistics.neurons.up_absolute * norms**exponent)


def column_norms(view: LayerView, exponent: float) -> dict[str, Array]:
    """|W[:, i]|^exponent of each linear's inputs, over all linears that read the same vector."""
    found: dict[str, Array] = {}
    for group in TOGETHER:
        squares = sum(np.square(view.weights.linear(name)).sum(axis=0) for name in group)
        found |= dict.fromkeys(group, positive(np.sqrt(squares) ** exponent))
    return found


def _chess(*, exponent: float = 0.0, every_token: bool = False) -> Callable[[LayerView], LayerFit]:
    def fit(view: LayerView) -> LayerFit:
        weights = chess_weights(view, exponent)
        found = top([NEURONS], {NEURONS: weights}) if every_token else neurons(view, weights)
        middle = view.statistics.sites["mlp_mid"]
        mean = middle.mean_absolute.mean()
        variance = middle.mean_square.mean() - mean**2
        return replace(found, facts={"variance": float(variance), "peak": middle.largest / mean})

    return fit


def _teal(exponent: float) -> Callable[[LayerView], LayerFit]:
    def fit(view: LayerView) -> LayerFit:
        return top(LINEARS, column_norms(view, exponent) if exponent else None)

    return fit


def _log(*, rising: bool) -> Shape:
    return lambda fits: logarithmic(len(fits), rising=rising)


def _proxy(name: str, *, largest_first: bool) -> Shape:
    def shape(fits: Sequence[LayerFit]) -> Array:
        return by_rank(np.array([fit.facts[name] for fit in fits]), largest_first=largest_first)

    return shape


def spread(shape: Shape) -> Callable[[Sequence[LayerFit], Mapping[str, Spec]], list[LayerFit]]:
    """What gives each layer its own rates: thresholds are read off at other levels."""

    def apply(fits: Sequence[LayerFit], specs: Mapping[str, Spec]) -> list[LayerFit]:
        sizes = [
            sum(skippable_bytes(specs, layer, piece) for piece in fit.taus)
            for layer, fit in enumerate(fits)
        ]
        rates = layer_rates(shape(fits), LEVELS, np.array(sizes))
        return [_at_rates(fit, rates[:, layer]) for layer, fit in enumerate(fits)]

    return apply


def _at_rates(fit: LayerFit, rates: Array) -> LayerFit:
    taus = {piece: np.interp(rates, LEVELS, values) for piece, values in fit.taus.items()}
    kept = {piece: np.interp(rates, LEVELS, values) for piece, values in fit.kept.items()}
    return replace(fit, taus=taus, kept=kept)


UP, DOWN = spread(_log(rising=True)), spread(_log(rising=False))
# |g u| varies most in late layers. Pruning those harder gave KL 0.179 where uniform rates gave
# 0.190, on SmolLM2 at active fraction 0.78; but both were picked on the same two windows.
VARIANCE = spread(_proxy("variance", largest_first=True))
PEAK = spread(_proxy("peak", largest_first=True))


def _on_chess(
    name: str,
    about: str,
    *,
    exponent: float = 0.0,
    every_token: bool = False,
    allocate: Callable[[Sequence[LayerFit], Mapping[str, Spec]], list[LayerFit]] | None = None,
) -> Method:
    fit = _chess(exponent=exponent, every_token=every_token)
    rule = "top" if every_token else "threshold"
    return Method(name, f"CHESS with {about}", "ffn", fit, True, rule, allocate)


STRATEGIES = (
    *PREDICTED,
    _on_chess("chess-top", "the same share for every token", every_token=True),
    _on_chess("chess-down-half", "|W_down|^0.5", exponent=0.5),
    _on_chess("chess-log-up", "rates rising logarithmically by layer", allocate=UP),
    _on_chess("chess-log-down", "rates falling logarithmically by layer", allocate=DOWN),
    _on_chess("chess-variance", "rates by the rank of the variance of |g u|", allocate=VARIANCE),
    _on_chess("chess-peak", "rates by the rank of max / mean of |g u|", allocate=PEAK),
    _on_chess("chess-top-down", "strategies 1 and 2", every_token=True, exponent=0.5),
    _on_chess("chess-top-variance", "strategies 1 and 3", every_token=True, allocate=VARIANCE),
    _on_chess("chess-down-variance", "strategies 2 and 3", exponent=0.5, allocate=VARIANCE),
    _on_chess(
        "chess-all", "all three strategies", every_token=True, exponent=0.5, allocate=VARIANCE
    ),
    Method("teal-top", "TEAL with the same share for every token", "input", _teal(0), True, "top"),
    Method("teal-norm-half", "top |x| |W|^0.5 of every token", "input", _teal(0.5), True, "top"),
    Method("teal-norm", "top |x| |W| of every token", "input", _teal(1), True, "top"),
)
# What the ablation compares: CHESS, each strategy, the pairs and all.
ABLATION = (
    "chess-ffn",
    "chess-top",
    "chess-scaled",
    "chess-down-half",
    "chess-down",
    "chess-log-up",
    "chess-log-down",
    "chess-variance",
    "chess-peak",
    "chess-top-down",
    "chess-top-variance",
    "chess-down-variance",
    "chess-all",
)
