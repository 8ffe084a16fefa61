"""The threshold predictor of strategy 1: thresholds that follow the error, not the rate.

A static threshold drops little of a vector of large numbers and much of one of small numbers. For
each token sampled at calibration we look up the threshold at which what is dropped is the same part
of the vector's score (sum of squares) for every token, the layer's mean at LEVEL, and fit a line
through its logarithm: kernels/sparse/threshold_factor.py says over which statistics. One fit
serves the whole dial; the base thresholds are quantiles of score / factor, so the mean kept share
is the level's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.calibration.histograms import Array
from converters.methods.family import LEVELS, LayerFit, LayerView, Method, positive
from sparity_edge.kernels.reference.selection import factors, features
from sparity_edge.kernels.sparse_vector import FLOOR, LARGEST_FACTOR
from sparity_edge.plans.plan import LINEARS, NEURONS, PREDICTOR, SITES

LEVEL = 0.5
RIDGE = 1e-3  # of the number of tokens: keeps a statistic that hardly varies from a wild slope


def scaled(view: LayerView, pieces: Sequence[str], weights: Array | None = None) -> LayerFit:
    """Thresholds with a factor predicted for each vector.

    Args:
        view: of the layer.
        pieces: which get thresholds; those of one site share a fit.
        weights: (channels,) of all of them; None: ones.
    """
    known: dict[str, tuple[Array, Array]] = {}
    taus, predictors = {}, {}
    for piece in pieces:
        site = SITES[piece]
        if site not in known:
            x = view.statistics.sampled[site]
            known[site] = _fit_site(x, x if weights is None else x * weights)
        predictors[piece], taus[piece] = known[site]
    kept = dict.fromkeys(pieces, 1 - LEVELS)
    channels = {} if weights is None else dict.fromkeys(pieces, weights)
    return LayerFit(taus, kept, channels, predictors=predictors)


def _fit_site(x: Array, scores: Array) -> tuple[Array, Array]:
    """(coefficients, taus over `LEVELS`)."""
    sizes = np.abs(scores)
    coefficients = coefficients_of(x, wanted_factors(sizes, LEVEL))
    taus = np.quantile(sizes / factors(x, coefficients), LEVELS)
    return coefficients, positive(taus)


def wanted_factors(sizes: Array, level: float) -> Array:
    """On the threshold that drops `level` of all, what gives each token the mean error, (tokens,).

    Args:
        sizes: |score|, (tokens, channels).
        level: from 0 to 1.
    """
    tau = np.quantile(sizes, level)
    ordered = np.sort(sizes, axis=1)
    errors = np.cumsum(ordered.astype(np.float64) ** 2, axis=1)
    errors /= np.maximum(errors[:, -1:], FLOOR)
    dropped = (ordered <= tau).sum(axis=1)
    before = np.concatenate([np.zeros((len(errors), 1)), errors], axis=1)
    bound = before[np.arange(len(errors)), dropped].mean()
    last = np.minimum((errors <= bound).sum(axis=1), ordered.shape[1] - 1)
    wanted = ordered[np.arange(len(ordered)), last] / max(tau, FLOOR)
    result: Array = np.clip(wanted, 1 / LARGEST_FACTOR, LARGEST_FACTOR)
    return result


def coefficients_of(x: Array, wanted: Array) -> Array:
    """The line through log(wanted) over the statistics of each row of x, (PREDICTOR,) float32.

    Args:
        x: (tokens, channels).
        wanted: (tokens,), above 0.
    """
    found, labels = features(x).astype(np.float64), np.log(wanted)
    middle = found.mean(axis=0)
    centred = found - middle
    normal = centred.T @ centred + RIDGE * len(x) * np.eye(PREDICTOR - 1)
    slopes = np.linalg.solve(normal, centred.T @ (labels - labels.mean()))
    return np.append(labels.mean() - slopes @ middle, slopes).astype(np.float32)


def _chess(view: LayerView) -> LayerFit:
    return scaled(view, [NEURONS], positive(view.statistics.neurons.up_absolute))


def _teal(view: LayerView) -> LayerFit:
    return scaled(view, LINEARS)


PREDICTED = (
    Method("chess-scaled", "|g| E|u| > tau x predicted factor", "ffn", _chess, True, "scaled"),
    Method("teal-scaled", "|x| > tau x predicted factor", "input", _teal, True, "scaled"),
)
