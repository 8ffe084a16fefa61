"""Statistics of one layer over calibration text: all that a method needs to set thresholds.

Of every site (the vectors that a rule sees) moments by channel and a fine histogram of |x|; of
the FFN's neurons a histogram of each one's gate, with the energy of its up value, from which the
quantiles of any score |gate - centre| * weight follow without another pass. The first positions of
a window, where attention sinks make numbers a hundred times larger, are left out and counted apart.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from converters.calibration.histograms import (
    MAGNITUDES,
    Array,
    count,
    count_gates,
    gate_bins,
    interpolate_below,
    quantiles,
)
from sparity_edge.errors import SourceError
from sparity_edge.model.layer_run import Vectors

FIRST = 4  # positions of a window that are always dense
# Vectors of every so many positions are kept for what cannot be learned from histograms: 1024 of
# 65,536 tokens, 168 MB for a layer of an 8B model.
SAMPLE_STEP = 64
BISECTIONS = 32  # of a range of about e^40: 1e-8 relative


@dataclass
class SiteStatistics:
    """Of one vector; sums are float64 by channel."""

    channels: int
    tokens: int = 0
    largest: float = 0.0
    counts: Array = field(default_factory=lambda: np.zeros(MAGNITUDES, dtype=np.int64))

    def __post_init__(self) -> None:
        self.sums = np.zeros(self.channels)
        self.absolute_sums = np.zeros(self.channels)
        self.square_sums = np.zeros(self.channels)

    def add(self, x: Array) -> None:
        """Count (tokens, channels) float32."""
        if not len(x):
            return
        sizes = np.abs(x)
        self.tokens += len(x)
        self.largest = max(self.largest, float(sizes.max()))
        # Float32 is exact enough for the few hundred tokens of a chunk, and five times as fast.
        self.sums += x.sum(axis=0)
        self.absolute_sums += sizes.sum(axis=0)
        self.square_sums += np.einsum("tc,tc->c", x, x)
        count(sizes.view(np.uint32), self.counts)

    @property
    def mean(self) -> Array:
        """E[x_i], (channels,)."""
        return self.sums / self.tokens

    @property
    def mean_absolute(self) -> Array:
        """E|x_i|, (channels,)."""
        return self.absolute_sums / self.tokens

    @property
    def mean_square(self) -> Array:
        """E[x_i^2], (channels,)."""
        return self.square_sums / self.tokens

    @property
    def variance(self) -> float:
        """Of all numbers of the site."""
        return float(self.mean_square.mean() - self.mean.mean() ** 2)

    def quantiles(self, levels: Array) -> Array:
        """The size below which the share `levels` of all numbers lies; within 0.4 %."""
        return quantiles(self.counts, levels)


class NeuronStatistics:
    """Of the FFN's neurons: gates after SiLU and up values.

    Args:
        neurons: how many.
    """

    def __init__(self, neurons: int) -> None:
        self.neurons = neurons
        self.tokens = 0
        self._edges, self._table = gate_bins()
        bins = len(self._edges) - 1
        # 9.6 KB a neuron: 137 MB for the 14,336 of an 8B model, of one layer at a time.
        self._counts = np.zeros((neurons, bins), dtype=np.uint32)
        self._energy = np.zeros((neurons, bins), dtype=np.float32)
        self._up_sums = np.zeros(neurons)
        self._up_squares = np.zeros(neurons)
        self._below: tuple[Array, Array, Array] | None = None
        self._known: dict[tuple[bytes, ...], Array] = {}  # quantiles: several methods ask the same

    def jobs(self, gate: Array, up: Array, parts: int) -> list[Callable[[], None]]:
        """The work of counting (tokens, neurons); no two parts touch the same neuron."""
        self.tokens += len(gate)
        step = -(-self.neurons // (16 * parts)) * 16
        starts = range(0, self.neurons, step)
        return [partial(self._add, gate, up, at, min(at + step, self.neurons)) for at in starts]

    def _add(self, gate: Array, up: Array, start: int, stop: int) -> None:
        bits = gate.view(np.uint32)
        count_gates(bits, up, self._table, start, stop, self._counts, self._energy)
        part = up[:, start:stop]
        self._up_sums[start:stop] += np.abs(part).sum(axis=0)
        self._up_squares[start:stop] += np.einsum("tc,tc->c", part, part)

    @property
    def up_absolute(self) -> Array:
        """E|u_i|, (neurons,)."""
        return self._up_sums / self.tokens

    @property
    def up_square(self) -> Array:
        """E[u_i^2], (neurons,)."""
        return self._up_squares / self.tokens

    def quantiles(self, weights: Array, levels: Array, centre: Array | float = 0.0) -> Array:
        """The |g_i - centre_i| * weight_i below which the share `levels` of all scores lies."""
        centres = np.broadcast_to(np.asarray(centre, dtype=np.float64), self.neurons)
        key = (weights.tobytes(), levels.tobytes(), centres.tobytes())
        if key not in self._known:
            self._known[key] = self._quantiles(weights, levels, centres)
        return self._known[key]

    def _quantiles(self, weights: Array, levels: Array, centres: Array) -> Array:
        largest = max(abs(self._edges[0]), abs(self._edges[-1])) + np.abs(centres).max()
        bounds = np.log([2.0**-30 * weights.min(), largest * weights.max()])
        return np.array(
            [self._quantile(weights, float(level), centres, *bounds) for level in levels]
        )

    def _quantile(
        self, weights: Array, level: float, centre: Array, low: float, high: float
    ) -> float:
        """By bisection of the logarithm: the score's share below is known at any point."""
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            if self.skipped(np.exp(middle) / weights, centre) < level:
                low = middle
            else:
                high = middle
        return float(np.exp(high))

    def skipped(self, thresholds: Array, centre: Array) -> float:
        """The share of (token, neuron) pairs with |g_i - centre_i| <= threshold_i, (neurons,)."""
        inside = self._between(0, thresholds, centre)
        return float(inside.sum()) / (self.tokens * self.neurons)

    def centre_of_skipped(self, thresholds: Array | None, centre: Array) -> Array:
        """E[g u^2] / E[u^2] of each neuron over the tokens that skip it, (neurons,).

        The constant that replaces a skipped gate with least error. Where a neuron is never skipped,
        its centre stays. `thresholds` (neurons,); None: over all tokens.
        """
        _, energies, products = self._cumulated()
        if thresholds is None:
            energy, product = energies[:, -1], products[:, -1]
        else:
            energy = self._between(1, thresholds, centre)
            product = self._between(2, thresholds, centre)
        with np.errstate(divide="ignore", invalid="ignore"):
            fresh = product / energy
        # A difference of two large sums may be all rounding.
        sound = np.isfinite(fresh) & (energy > 1e-5 * energies[:, -1])
        return np.where(sound, fresh, centre)

    def _between(self, kind: int, thresholds: Array, centre: Array) -> Array:
        """What of the cumulated `kind` lies within the thresholds around the centre, (neurons,)."""
        ends = []
        for edge in (centre - thresholds, centre + thresholds):
            values = np.clip(edge, self._edges[0], self._edges[-1]).astype(np.float32)
            out = np.empty(self.neurons)
            interpolate_below(
                self._cumulated()[kind],
                self._edges,
                self._table,
                values,
                values.view(np.uint32),
                out,
            )
            ends.append(out)
        difference: Array = ends[1] - ends[0]
        return difference

    def _cumulated(self) -> tuple[Array, Array, Array]:
        """Counts, u^2 and g u^2 below each edge, (neurons, bins + 1) float32; made once."""
        if self._below is None:
            middles = (self._edges[1:] + self._edges[:-1]) / 2
            self._below = (
                _cumulate(self._counts),
                _cumulate(self._energy),
                _cumulate(self._energy * middles),
            )
        return self._below


@dataclass
class LayerStatistics:
    """Of one decoder layer."""

    layer: int
    sites: dict[str, SiteStatistics]  # attn_in, attn_out, mlp_in, gate, mlp_mid
    first: dict[str, SiteStatistics]  # of the first positions of each window
    neurons: NeuronStatistics
    sampled: dict[str, Array]  # site -> (tokens, channels): those at every SAMPLE_STEP-th position


class Collector:
    """Counts the vectors of one layer as a layer-wise run shows them.

    Args:
        layer: its number.
        pool: threads to share the counting; results do not depend on how many there are.
        threads: how many those are.
    """

    def __init__(self, layer: int, pool: ThreadPoolExecutor, threads: int) -> None:
        self._pool, self._threads = pool, threads
        self._layer = layer
        self._sites: dict[str, SiteStatistics] = {}
        self._first: dict[str, SiteStatistics] = {}
        self._neurons: NeuronStatistics | None = None
        self._sampled: dict[str, list[Array]] = {}

    def __call__(self, vectors: Vectors) -> None:
        """Count a chunk."""
        skip = max(0, FIRST - vectors.position)
        jobs: list[Callable[[], None]] = []
        for name in ("attn_in", "attn_out", "mlp_in", "gate", "mlp_mid"):
            x = getattr(vectors, name)
            site = self._sites.setdefault(name, SiteStatistics(x.shape[1]))
            first = self._first.setdefault(name, SiteStatistics(x.shape[1]))
            jobs.append(partial(first.add, x[:skip]))
            jobs.append(partial(site.add, x[skip:]))
            sampled = x[-(vectors.position + 1) % SAMPLE_STEP :: SAMPLE_STEP]
            self._sampled.setdefault(name, []).append(sampled.copy())
        if self._neurons is None:
            self._neurons = NeuronStatistics(vectors.gate.shape[1])
        jobs += self._neurons.jobs(vectors.gate[skip:], vectors.up[skip:], self._threads)
        for done in [self._pool.submit(_quietly, job) for job in jobs]:
            done.result()

    def result(self) -> LayerStatistics:
        """What was counted.

        Raises:
            SourceError: the model computes numbers that are not finite.
        """
        assert self._neurons is not None
        if not all(np.isfinite(site.square_sums).all() for site in self._sites.values()):
            raise SourceError(
                f"Layer {self._layer} computes numbers that are not finite on this text, so there "
                "is nothing to calibrate; check the model with sparity-edge perplexity."
            )
        sampled = {name: np.concatenate(parts) for name, parts in self._sampled.items()}
        return LayerStatistics(self._layer, self._sites, self._first, self._neurons, sampled)


def _quietly(job: Callable[[], None]) -> None:
    """NumPy's warnings about infinity and NaN are of no use: `Collector.result` tells of them."""
    with np.errstate(over="ignore", invalid="ignore"):
        job()


def _cumulate(values: Array) -> Array:
    result = np.zeros((values.shape[0], values.shape[1] + 1), dtype=np.float32)
    result[:, 1:] = np.cumsum(values, axis=1, dtype=np.float64)
    return result
