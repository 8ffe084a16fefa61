"""TDA's criterion (Ma and others, 2024): thresholds whose tails weigh the same in every layer.

The size of neuron i for a token is n_i = |z_i| |W_down[:, i]|. Its tail at threshold t is what all
neurons below t give together; CETT(t) is the mean over tokens of the tail's length over that of the
FFN's whole output. One CETT for all layers gives each its threshold, found on other text than the
prompt. Knows nothing of how a choice is tried.
"""

from __future__ import annotations

from typing import Any

import numpy as np

STEP = 8  # every which token of the text is weighed
SHARES = np.linspace(0.02, 0.98, 25)  # of sizes, at which tails are weighed


class Observer:
    """A choice for `left_out.logits` that takes nothing away and remembers a sample of z.

    Args:
        norms: |W_down[:, i]| by layer.
    """

    def __init__(self, norms: Any) -> None:
        self._norms = norms
        self.sampled: dict[int, list[Any]] = {}  # z of some tokens, by layer
        self.pooled: dict[int, list[Any]] = {}  # the mean size of each neuron, by layer

    def __call__(self, layer: int, vectors: Any) -> None:
        z = vectors.mlp_mid
        self.sampled.setdefault(layer, []).append(z[::STEP].copy())
        self.pooled.setdefault(layer, []).append(np.abs(z).mean(axis=0) * self._norms[layer])


def weighed(z: Any, norms: Any, down: Any, pooled: Any) -> tuple[Any, Any, Any]:
    """Of one layer: thresholds, CETT of each, and the share of pooled sizes above each.

    Args:
        z: (tokens, neurons).
        norms: |W_down[:, i]|, (neurons,).
        down: W_down, (hidden, neurons).
        pooled: sizes of neurons, a row for each prompt.
    """
    sizes = np.abs(z) * norms
    thresholds = np.quantile(sizes, SHARES)
    whole = np.linalg.norm(z @ down.T, axis=1)
    tails = [
        float((np.linalg.norm((z * (sizes < t)) @ down.T, axis=1) / whole).mean())
        for t in thresholds
    ]
    kept = [float((pooled > t).mean()) for t in thresholds]
    return thresholds, np.maximum.accumulate(tails), np.array(kept)


def thresholds_of(curves: Any, kept: float) -> tuple[list[float], float]:
    """The threshold of each layer at the one CETT that keeps a share of all pooled sizes.

    Args:
        curves: what `weighed` gave for each layer.
        kept: the share.

    Returns:
        Thresholds, and the CETT.
    """
    low, high = 0.0, 1.0
    for _ in range(40):
        cett = (low + high) / 2
        share = np.mean([np.interp(cett, tails, shares) for _, tails, shares in curves])
        low, high = (cett, high) if share > kept else (low, cett)
    return [float(np.interp(cett, tails, values)) for values, tails, _ in curves], cett
