"""Where a search of rates may begin: uniform, logarithmic by layer, or by each layer's sensitivity.

All are rates by gene, one piece of one layer, whose mean weighted by bytes is the one wanted; the
schedules of strategy 3 give a layer's pieces the same rate. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from converters.allocate.layers import by_rank, layer_rates, logarithmic
from converters.calibration.histograms import Array

CONTRASTS = (0.1, 0.2, 0.3)  # between the least and the most pruned layer at 0.5: which is tried


def scheduled(shape: Array, layers: Sequence[int], sizes: Array, level: float, contrast: float
) -> Array:  # fmt: skip
    """Rates of a schedule by layer.

    Args:
        shape: (layers,) from 0 (prune less) to 1 (prune harder); all alike: uniform.
        layers: of each gene.
        sizes: (genes,) bytes.
        level: mean rate wanted, from 0 to 0.9.
        contrast: between shapes 0 and 1 at level 0.5.

    Returns:
        (genes,).
    """
    by_layer = np.bincount(layers, sizes, minlength=len(shape))
    rates: Array = layer_rates(shape, np.array([level]), by_layer, contrast)[0][np.array(layers)]
    return rates


def shapes(layers: int) -> dict[str, Array]:
    """The schedules that need no measurement, by name."""
    return {
        "uniform": np.zeros(layers),
        "log-up": logarithmic(layers, rising=True),
        "log-down": logarithmic(layers, rising=False),
    }


def by_sensitivity(losses: Array) -> Array:
    """The shape that prunes those layers least which lose most when they alone are pruned.

    Args:
        losses: (rates, layers), the loss of the model.
    """
    ranks = [by_rank(each, largest_first=False) for each in losses]
    return by_rank(np.mean(ranks, axis=0), largest_first=True)


def tuned(rates: Callable[[float], Array], score: Callable[[Sequence[Array]], Sequence[float]]
) -> Array:  # fmt: skip
    """The rates of least score among those of `CONTRASTS`: both ends of a schedule are tuned.

    Args:
        rates: of a contrast.
        score: judges several rates, the lower the better.
    """
    tried = [rates(contrast) for contrast in CONTRASTS]
    return tried[int(np.argmin(score(tried)))]
