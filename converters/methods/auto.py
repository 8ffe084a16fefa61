"""The auto plan (ours): least KL divergence at a budget, over all pieces and layers.

One backward pass gives what dropping channels of every piece costs (fisher.py), one pass over the
calibration text the thresholds that drop a given share, and a Lagrange multiplier for each level of
the dial the shares (allocate/lagrange.py). A layer either thins the inputs of up and down or skips
whole neurons around centred gates, whichever the pack can store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from converters.allocate.lagrange import Allocation, Allocator, Curve, Price
from converters.allocate.price import by_bytes
from converters.block_weights import BlockWeights
from converters.fisher import RATES, PieceCosts, layer_costs
from converters.gradient import backward
from converters.gradient_block import Slopes
from converters.histograms import Array
from converters.methods.centred import folded
from converters.methods.family import Spec, positive
from converters.statistics import FIRST, NeuronStatistics, SiteStatistics
from converters.windows import Windows
from sparity_edge.format import PackedModel
from sparity_edge.kernels.buffers import Floats
from sparity_edge.layout import PackedMatrix
from sparity_edge.loading import default_cache_dtype
from sparity_edge.model import Model
from sparity_edge.plan import LINEARS, NEURONS, SITES, PlanFamily
from sparity_edge.progress import Progress, silent
from sparity_edge.trace import Trace, Vectors

LEVELS = np.linspace(0, 0.8, 33)  # of sparsity: steps of 0.025
GRADIENT_WINDOWS = 4
QUANTILES = np.linspace(0, 0.95, 191)  # shares at which thresholds are known
ALWAYS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj")
FORMS = {"input": (*ALWAYS, "up_proj", "down_proj"), "mixed": (*ALWAYS, NEURONS)}


@dataclass(frozen=True)
class Fitted:
    """What the auto plan knows of a model before a budget is spread."""

    costs: tuple[Mapping[str, PieceCosts], ...]  # by layer
    taus: tuple[Mapping[str, Array], ...]  # by layer: piece -> (QUANTILES,)
    means: tuple[PackedMatrix | None, ...]  # by layer; empty without neurons


def fit(
    packed: PackedModel,
    windows: Windows,
    layout: str,
    *,
    threads: int,
    seed: int = 0,
    progress: Progress = silent,
) -> Fitted:
    """Measure costs and thresholds.

    Args:
        packed: the model, dense while it is measured.
        windows: calibration text; gradients are taken over `GRADIENT_WINDOWS` evenly spread ones.
        layout: "input" or "mixed".
        threads: how many compute.
        seed: of the labels that the gradient pass samples.
        progress: told of layers.
    """
    neurons = layout == "mixed"
    costs: dict[int, Mapping[str, PieceCosts]] = {}

    def visit(layer: int, slopes: list[Slopes]) -> None:
        costs[layer] = layer_costs(slopes, neurons=neurons)

    some = windows[:: max(1, len(windows) // GRADIENT_WINDOWS)][:GRADIENT_WINDOWS]
    backward(packed, some, visit, seed=seed, progress=progress)
    ordered = tuple(costs[layer] for layer in range(len(costs)))
    taus = _thresholds(packed, windows, ordered, threads=threads, progress=progress)
    means = tuple(_mean(packed, layer, each) for layer, each in enumerate(ordered) if neurons)
    return Fitted(ordered, taus, means)


def family(
    fitted: Fitted,
    layout: str,
    specs: Mapping[str, Spec],
    price: Price,
    model: str,
    notes: Mapping[str, Any],
) -> PlanFamily:
    """Spread the budget of every level of the dial.

    Args:
        fitted: as `fit` gives it.
        layout: that `fit` was given.
        specs: tensor name -> how it is stored in the pack that will carry the family.
        price: what reading costs: bytes or time.
        model: fingerprint of the model.
        notes: evidence and origin.
    """
    pieces = FORMS[layout]
    forms = [
        ({piece: Curve(RATES, costs[piece].costs) for piece in pieces},) for costs in fitted.costs
    ]
    allocator = Allocator(forms, price)
    saved = _Saved(specs, fitted.means)
    plans = [allocator.within(1 - level) for level in LEVELS]
    levels, kept = [0.0], [_empty(plans[0])]
    for level, plan in zip(LEVELS[1:], plans[1:], strict=True):
        if saved(plan) > saved(kept[-1]) + 1e-6:
            levels.append(float(level))
            kept.append(plan)
    tables = {piece: _table(fitted, kept, piece) for piece in pieces}
    centred = {NEURONS: _stacked(fitted, NEURONS, "centre")} if NEURONS in pieces else {}
    return PlanFamily(
        name="auto",
        method="least KL by a Fisher estimate, all pieces under one budget",
        rule="threshold",
        layout=layout,
        model=model,
        levels=np.array(levels, dtype=np.float32),
        active=np.array([1 - saved(plan) for plan in kept], dtype=np.float32),
        tables=tables,
        weights={piece: _stacked(fitted, piece, "weights") for piece in pieces},
        centres=centred,
        means=fitted.means,
        notes={**notes, "fisher_kl": [plan.cost for plan in kept]},
    )


class _Saved:
    """The share of decoder-block bytes that an allocation leaves unread on the calibration text."""

    def __init__(
        self, specs: Mapping[str, Spec], means: Sequence[PackedMatrix | None] = ()
    ) -> None:
        self._price = by_bytes(specs, means)
        self._all = sum(spec.nbytes for name, spec in specs.items() if ".layers." in name)

    def __call__(self, plan: Allocation) -> float:
        saved = 0.0
        for layer, rates in enumerate(plan.rates):
            for piece, rate in rates.items():
                dense, thinned = self._price(piece, layer, np.array([1.0, 1 - rate]))
                saved += float(dense - thinned)
        return saved / self._all


def _empty(plan: Allocation) -> Allocation:
    return Allocation(tuple({} for _ in plan.rates), plan.forms, 0.0, plan.price)


def _table(fitted: Fitted, plans: Sequence[Allocation], piece: str) -> Any:
    """Thresholds (levels, layers) of one piece; 0 where it stays dense."""
    table = np.zeros((len(plans), len(fitted.taus)), dtype=np.float32)
    for row, plan in zip(table, plans, strict=True):
        for layer, rates in enumerate(plan.rates):
            if piece in rates:
                row[layer] = np.interp(rates[piece], QUANTILES, fitted.taus[layer][piece])
    return table


def _stacked(fitted: Fitted, piece: str, name: str) -> Any:
    return np.stack([getattr(costs[piece], name) for costs in fitted.costs])


def _mean(packed: PackedModel, layer: int, costs: Mapping[str, PieceCosts]) -> PackedMatrix:
    weights, centre = BlockWeights(packed, layer), costs[NEURONS].centre
    assert centre is not None
    return weights.packed_like_up(folded(weights.up, weights.down, centre))


def _thresholds(
    packed: PackedModel,
    windows: Windows,
    costs: Sequence[Mapping[str, PieceCosts]],
    *,
    threads: int,
    progress: Progress,
) -> tuple[Mapping[str, Array], ...]:
    """The score below which each of `QUANTILES` lies, by layer and piece, on dense text."""
    from sparity_edge.kernels.program import ThreadedMachine

    machine = ThreadedMachine(threads)
    try:
        model = Model(packed, machine, windows.shape[1], default_cache_dtype(packed))
        model.compile(progress)
        found = []
        with Trace(model, windows) as trace, ThreadPoolExecutor(threads) as pool:
            for layer in range(trace.layers):
                scores = _Scores(costs[layer], pool, threads)
                trace.run(layer, scores)
                found.append(scores.taus())
                progress("thresholds", layer + 1, trace.layers)
        return tuple(found)
    finally:
        machine.close()


def _count(counted: SiteStatistics, x: Floats, weights: Floats) -> None:
    counted.add(x * weights)


class _Scores:
    """Counts the scores of one layer's pieces as a trace shows them."""

    def __init__(
        self, costs: Mapping[str, PieceCosts], pool: ThreadPoolExecutor, threads: int
    ) -> None:
        self._costs, self._pool, self._threads = costs, pool, threads
        self._inputs = {piece: SiteStatistics(len(costs[piece].weights)) for piece in LINEARS}
        self._neurons: NeuronStatistics | None = None
        if NEURONS in costs:
            self._neurons = NeuronStatistics(len(costs[NEURONS].weights))

    def __call__(self, vectors: Vectors) -> None:
        """Count a chunk."""
        skip = max(0, FIRST - vectors.position)
        jobs: list[Callable[[], None]] = []
        for piece, counted in self._inputs.items():
            x, weights = getattr(vectors, SITES[piece])[skip:], self._costs[piece].weights
            jobs.append(partial(_count, counted, x, weights))
        if self._neurons is not None:
            jobs += self._neurons.jobs(vectors.gate[skip:], vectors.up[skip:], self._threads)
        for done in [self._pool.submit(job) for job in jobs]:
            done.result()

    def taus(self) -> dict[str, Array]:
        """Piece -> (QUANTILES,)."""
        found = {
            piece: positive(counted.quantiles(QUANTILES)) for piece, counted in self._inputs.items()
        }
        if self._neurons is not None:
            costs = self._costs[NEURONS]
            assert costs.centre is not None
            scores = self._neurons.quantiles(costs.weights, QUANTILES[1:], costs.centre)
            found[NEURONS] = positive(np.concatenate([[0], scores]))
        return found
