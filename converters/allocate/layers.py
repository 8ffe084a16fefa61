"""Strategy 3: rates that differ from layer to layer, their mean weighted by bytes kept.

A shape says which layers are to be pruned harder, by a number from 0 to 1 for each; the rates then
are level + contrast x (shape - its mean), within what the dial allows. Logarithmic schedules are
r_i = r_0 + (r_last - r_0) log(i + 1) / log(n); proxies go by the rank of a statistic.
"""

from __future__ import annotations

import numpy as np

from converters.calibration.histograms import Array
from sparity_edge.choices import MAX_LEVEL

# Between the least and the most pruned layer at level 0.5, less towards the ends. Ranks of variance
# on SmolLM2: KL 0.179 at 0.15, 0.189 at 0.3 (uniform rates 0.190 at the same bytes).
CONTRAST = 0.15
BISECTIONS = 50


def logarithmic(layers: int, *, rising: bool) -> Array:
    """Shape of the schedule: from 0 at the first layer to 1 at the last, or the other way."""
    shape: Array = np.log(np.arange(1, layers + 1)) / np.log(max(layers, 2))
    return shape if rising else 1 - shape


def by_rank(values: Array, *, largest_first: bool) -> Array:
    """Shape by rank: 1 for the layer of the largest (or smallest) value, 0 at the other end."""
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    shape: Array = ranks / max(len(values) - 1, 1)
    return shape if largest_first else 1 - shape


def layer_rates(shape: Array, levels: Array, sizes: Array, contrast: float = CONTRAST) -> Array:
    """Share to drop in each layer.

    Args:
        shape: (layers,) from 0 (prune less) to 1 (prune harder).
        levels: (levels,) from 0 to 0.9, the mean rates wanted.
        sizes: (layers,) bytes that each layer's pieces take.
        contrast: between shapes 0 and 1 at level 0.5.

    Returns:
        (levels, layers), from 0 to 0.9, whose mean weighted by `sizes` is the level.
    """
    shares = np.asarray(sizes, dtype=np.float64) / np.sum(sizes)
    rates = np.zeros((len(levels), len(shape)))
    for row, level in zip(rates, levels, strict=True):
        pattern = contrast * 4 * level * (1 - level) * (shape - shape @ shares)
        low, high = -1.0, 2.0  # what is cut off at one end, all others take over
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            row[:] = np.clip(middle + pattern, 0, MAX_LEVEL)
            low, high = (middle, high) if row @ shares < level else (low, middle)
        row[:] = np.clip(high + pattern, 0, MAX_LEVEL)
    return rates
