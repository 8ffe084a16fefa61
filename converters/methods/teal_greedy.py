"""TEAL with its greedy search (arXiv 2408.14690, algorithm 1): each layer shares its budget out.

Starting dense, the linear whose inputs can lose a little more (STEP of q's weights, in bytes) with
the least error at the layer's output loses it, until the layer is as sparse as the dial goes. The
same effective level holds in every layer. Ours measures the error by token, not along the sequence
as the authors' code does, and tries the candidates that were best before first: errors only grow
with what is dropped, so the others need not be tried again.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

import numpy as np

from converters.calibration.gradient_layer import LayerFloats
from converters.calibration.histograms import Array
from converters.calibration.statistics import FIRST
from converters.methods.family import LEVELS, LayerFit, LayerView, Method, scalar
from converters.methods.teal import MOST
from sparity_edge.arrays import Floats
from sparity_edge.model.rotary import RopeTables
from sparity_edge.plans.plan import LINEARS, SITES

STEP = 0.05
FINE = np.linspace(0, 1, 201)


def _fit(view: LayerView) -> LayerFit:
    return scalar(view, shared_out(view))


def shared_out(view: LayerView) -> dict[str, Array]:
    """Rates (levels,) by linear whose mean, weighted by their sizes, is the level."""
    shapes = view.weights.shapes
    sizes = {name: shapes[name][0] * shapes[name][1] for name in LINEARS}
    masked = MaskedLayer(view)
    path = [dict.fromkeys(LINEARS, 0.0)]
    queue = [(0.0, 0, name) for name in LINEARS]  # error, when it was measured, linear
    while queue and _effective(path[-1], sizes) < LEVELS[-1]:
        error, measured, name = heapq.heappop(queue)
        rates = path[-1] | {name: path[-1][name] + STEP * sizes["q_proj"] / sizes[name]}
        if rates[name] > MOST:
            continue
        if measured == len(path):
            path.append(rates)
            heapq.heappush(queue, (error, 0, name))
        else:
            heapq.heappush(queue, (masked.error(rates), len(path), name))
    reached = [_effective(rates, sizes) for rates in path]
    return {name: np.interp(LEVELS, reached, [rates[name] for rates in path]) for name in LINEARS}


def _effective(rates: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    return sum(rates[name] * sizes[name] for name in LINEARS) / sum(sizes.values())


class MaskedLayer(LayerFloats):
    """A layer whose linears see only inputs above their thresholds, but for the first positions.

    The error is taken over the last quarter of the tokens, as in the paper, so what comes behind
    attention is computed for those alone, and attention once for each of its thresholds.
    """

    def __init__(self, view: LayerView) -> None:
        packed = view.weights.packed
        config = packed.config
        layer = view.statistics.layer
        super().__init__(packed, config, layer, RopeTables(config, len(view.sample)))
        self._x: Floats = view.sample
        self._last = len(self._x) * 3 // 4
        self._quantiles = {
            name: view.statistics.sites[SITES[name]].quantiles(FINE) for name in LINEARS
        }
        self._taus: dict[str, float] = {}
        self._attended: dict[tuple[float | None, ...], Floats] = {}
        self._dense = self._output()

    def error(self, rates: Mapping[str, float]) -> float:
        """The mean distance of the layer's output from the dense one's."""
        self._taus = {
            name: float(np.interp(rate, FINE, self._quantiles[name]))
            for name, rate in rates.items()
            if rate > 0
        }
        return float(np.linalg.norm(self._output() - self._dense, axis=1).mean())

    def _output(self) -> Floats:
        taus = tuple(map(self._taus.get, ("q_proj", "k_proj", "v_proj")))
        if taus not in self._attended:
            self._attended[taus] = self._attention_values(self._x).attn_out[self._last :]
        return self._behind_attention(self._x[self._last :], self._attended[taus])

    def _linear(self, name: str, x: Floats) -> Floats:
        if name in self._taus:
            keep = np.abs(x) > np.float32(self._taus[name])
            position = len(self._x) - len(x)  # of the first row
            keep[: max(0, FIRST - position)] = True
            x = x * keep
        return super()._linear(name, x)


TEAL_GREEDY = Method(
    "teal-greedy", "TEAL, greedy in each layer: |x| > tau", "input", _fit, slow=True
)
