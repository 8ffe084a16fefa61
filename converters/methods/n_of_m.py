"""N:M activation sparsity (arXiv 2509.22166): of each M neighbouring inputs the N best stay.

The level is the share dropped, so `nm-16` at 0.5 is 8:16; between such points some layers keep one
input more than others. Scores: |x_i| (ACT); times the channel's norm over calibration text (CLACT);
times the norm of a column of W without its mean, which takes no account of outliers (Amber Pruner,
arXiv 2508.02128). Shifts: what is dropped counts as the mean median of tokens (S-PTS), or as the
channel's mean (L-PTS, which the authors learn). No hardware for N:M is asked for: kernels skip
channels one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from converters.allocate.price import Spec
from converters.calibration.histograms import Array
from converters.methods.family import LayerFit, LayerView, Method, positive
from converters.methods.strategies import top
from sparity_edge.plans.plan import LINEARS, NEIGHBOURS, SITES

Channels = Callable[[LayerView, str], Array]  # numbers of the channels that a linear reads
ROBUST = (0.005, 0.995)  # quantiles of weights, beyond which they do not count to their mean
TURN = (5**0.5 - 1) / 2  # neighbouring multiples of it, modulo 1, are far apart


def clact(view: LayerView, linear: str) -> Array:
    """Root mean square of each channel over calibration text; of one site all are the same."""
    return positive(np.sqrt(view.statistics.sites[SITES[linear]].mean_square))


def amber(view: LayerView, linear: str) -> Array:
    """Norm of each column of the standardised W over the smallest of them."""
    weights = view.weights.linear(linear)
    low, high = np.quantile(weights, ROBUST)
    inside = weights[(weights >= low) & (weights <= high)]
    norms = positive(np.linalg.norm((weights - inside.mean()) / inside.std(), axis=0))
    result: Array = norms / norms.min()
    return result


def median(view: LayerView, linear: str) -> Array:
    """S-PTS: the mean of the medians of sampled tokens, for every channel."""
    x = view.statistics.sampled[SITES[linear]]
    return np.full(x.shape[1], np.median(x, axis=1).mean())


def mean(view: LayerView, linear: str) -> Array:
    """L-PTS in closed form: what a channel is on average."""
    return view.statistics.sites[SITES[linear]].mean


def _nm(name: str, of: int, score: Channels | None = None, shift: Channels | None = None) -> Method:
    def fit(view: LayerView) -> LayerFit:
        weights = {linear: score(view, linear) for linear in LINEARS if score}
        centres = {linear: shift(view, linear) for linear in LINEARS if shift}
        return replace(top(LINEARS, weights), centres=centres)

    def spread(fits: Sequence[LayerFit], _: Mapping[str, Spec]) -> list[LayerFit]:
        ranks = np.argsort(np.argsort(np.arange(len(fits)) * TURN % 1))
        moves = ((ranks + 0.5) / len(fits) - 0.5) / of
        return [_moved(fit, move) for fit, move in zip(fits, moves, strict=True)]

    by = (score.__name__ if score else "|x|") + (f", less the {shift.__name__}" if shift else "")
    return Method(
        name, f"N of {of} neighbours, by {by}", "input", fit, True, f"top-of-{of}", spread
    )


def _moved(fit: LayerFit, by: float) -> LayerFit:
    """Shares moved by less than half a channel: layers round at different positions of the dial."""
    return replace(fit, taus={name: np.clip(taus + by, 0, 1) for name, taus in fit.taus.items()})


N_OF_M = (
    *(_nm(f"nm-{of}", of) for of in NEIGHBOURS.values()),
    _nm("nm-16-clact", 16, score=clact),
    _nm("nm-16-amber", 16, score=amber),
    _nm("nm-16-spts", 16, shift=median),
    _nm("nm-16-lpts", 16, shift=mean),
)
