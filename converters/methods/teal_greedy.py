"""TEAL with its greedy search (arXiv 2408.14690, algorithm 1): each layer shares its budget out.

Starting dense, the linear whose inputs can lose a little more (STEP of q's weights, in bytes) with
the least error at the layer's output loses it, until the layer is as sparse as the dial goes. The
same effective level holds in every layer. Ours measures the error by token, not along the sequence
as the authors' code does, and tries the candidates that were best before first: errors only grow
with what is dropped, so the others need not be tried again.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy

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
TRIED = 2  # candidates at once; the same for any number of threads, so that the rates are
KEPT = 6  # outputs of a linear that are not computed anew where nothing in front of it changes
FINE = np.linspace(0, 1, 201)
ATTENTION = ("q_proj", "k_proj", "v_proj")


def _fit(view: LayerView) -> LayerFit:
    return scalar(view, shared_out(view))


def shared_out(view: LayerView) -> dict[str, Array]:
    """Rates (levels,) by linear whose mean, weighted by their sizes, is the level."""
    shapes = view.weights.shapes
    sizes = {name: shapes[name][0] * shapes[name][1] for name in LINEARS}
    masked = MaskedLayer(view)
    layers = [copy(masked) for _ in range(TRIED)]
    path = [dict.fromkeys(LINEARS, 0.0)]
    queue = [(0.0, 0, name) for name in LINEARS]  # error, when it was measured, linear

    def after(name: str) -> dict[str, float]:
        return path[-1] | {name: path[-1][name] + STEP * sizes["q_proj"] / sizes[name]}

    with ThreadPoolExecutor(view.threads) as pool:
        while queue and _effective(path[-1], sizes) < LEVELS[-1]:
            if queue[0][1] == len(path):
                error, _, name = heapq.heappop(queue)
                path.append(after(name))
                heapq.heappush(queue, (error, 0, name))
                continue
            tried: list[str] = []
            while queue and len(tried) < TRIED and queue[0][1] < len(path):
                name = heapq.heappop(queue)[2]
                if after(name)[name] <= MOST:
                    tried.append(name)
            errors = pool.map(MaskedLayer.error, layers, map(after, tried))
            for name, error in zip(tried, errors, strict=True):
                heapq.heappush(queue, (error, len(path), name))
    reached = [_effective(rates, sizes) for rates in path]
    return {name: np.interp(LEVELS, reached, [rates[name] for rates in path]) for name in LINEARS}


def _effective(rates: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    return sum(rates[name] * sizes[name] for name in LINEARS) / sum(sizes.values())


class MaskedLayer(LayerFloats):
    """A layer whose linears see only inputs above their thresholds, but for the first positions.

    The error is taken over the last quarter of the tokens, as in the paper, so what comes behind
    attention is computed for those alone. What candidates have in common is computed once; copies
    share it.
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
        self._known: dict[str, dict[tuple[float | None, ...], Floats]] = defaultdict(dict)
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
        def attended() -> Floats:
            return self._attention_values(self._x).attn_out[self._last :]

        return self._behind_attention(self._x[self._last :], self._once("", ATTENTION, attended))

    def _linear(self, name: str, x: Floats) -> Floats:
        def product() -> Floats:
            return super(MaskedLayer, self)._linear(name, self._masked(name, x))

        if len(x) == len(self._x) or name == "down_proj":
            return product()
        return self._once(name, (*ATTENTION, "o_proj", name), product)

    def _once(self, what: str, thinned: Sequence[str], make: Callable[[], Floats]) -> Floats:
        """What `make` gives, unless it is known: it depends on these linears' thresholds."""
        known, key = self._known[what], tuple(map(self._taus.get, thinned))
        found = known.get(key)
        if found is None:
            found = known[key] = make()
            if len(known) > KEPT:
                known.pop(next(iter(known)), None)
        return found

    def _masked(self, name: str, x: Floats) -> Floats:
        if name not in self._taus:
            return x
        keep = np.abs(x) > np.float32(self._taus[name])
        position = len(self._x) - len(x)  # of the first row
        keep[: max(0, FIRST - position)] = True
        masked: Floats = x * keep
        return masked


TEAL_GREEDY = Method(
    "teal-greedy", "TEAL, greedy in each layer: |x| > tau", "input", _fit, slow=True
)
