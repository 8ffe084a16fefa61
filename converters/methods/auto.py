"""The auto plan (ours): least KL divergence at a budget, over all pieces and layers.

One backward pass gives what dropping channels of every piece costs (fisher.py), one pass over the
calibration text the thresholds that drop a given share, and a Lagrange multiplier for each level of
the dial the shares (allocate/lagrange.py). A layer either thins the inputs of up and down or skips
whole neurons around centred gates, whichever the pack can store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from converters.allocate.evidence import Evidence, measure
from converters.allocate.lagrange import Allocation, Allocator, Curve, Price
from converters.allocate.price import Spec, by_bytes
from converters.calibration.fisher import (
    CENTRE_RATE,
    GAIN_SITES,
    RATES,
    ROUNDS,
    PieceCosts,
    layer_costs,
    token_factors,
)
from converters.calibration.gradient import backward
from converters.calibration.gradient_layer import Slopes
from converters.calibration.histograms import Array
from converters.calibration.layer_weights import BlockWeights
from converters.calibration.statistics import FIRST, NeuronStatistics, SiteStatistics
from converters.calibration.windows import Windows
from converters.methods.centred import folded
from converters.methods.family import positive
from sparity_edge.choices import MAX_LEVEL
from sparity_edge.model.kv_cache import default_kv_dtype
from sparity_edge.model.layer_run import LayerRun, Vectors
from sparity_edge.model.model import Model
from sparity_edge.packed.bundle import PackedBundle
from sparity_edge.packed.folder import PackedModel
from sparity_edge.packed.layout import PackedMatrix
from sparity_edge.plans.plan import NEURONS, SITES, PlanFamily
from sparity_edge.plans.plan_file import fingerprint
from sparity_edge.progress import Progress, silent

BUDGETS = np.linspace(0.98, 0.1, 45)  # of the dense model's bytes or time
GRADIENT_WINDOWS = 4  # of a small model
# Tokens x parameters of the blocks that gradients are taken of: four windows of SmolLM2; the 1.5B
# model gets by with one short one (512 tokens gave KL 0.014 at 0.65), whose 10^12 take minutes.
GRADIENT_WORK = 1 << 40
LEAST_GRADIENT_TOKENS = 256
HELD_BACK = 2  # windows that only the evidence is taken of
TRIED = (0.15, 0.25, 0.35, 0.5, 0.65)  # sparsities that the evidence is taken at
LEAST_STEP = 0.01  # of sparsity between two rows of the table
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
        windows: calibration text; gradients are taken over `gradient_windows` of it.
        layout: "input" or "mixed".
        threads: how many compute.
        seed: of the labels that the gradient pass samples.
        progress: told of layers.
    """
    neurons = layout == "mixed"
    costs: dict[int, Mapping[str, PieceCosts]] = {}

    def visit(layer: int, slopes: list[Slopes]) -> None:
        costs[layer] = layer_costs(slopes, neurons=neurons, threads=threads)

    some = gradient_windows(windows, _block_parameters(packed))
    backward(packed, some, visit, seed=seed, threads=threads, progress=progress)
    ordered = tuple(costs[layer] for layer in range(len(costs)))
    counted = _counted(packed, windows, ordered, threads=threads, progress=progress)
    ordered = tuple(
        {**each, NEURONS: replace(each[NEURONS], centre=centre)} if centre is not None else each
        for each, (_, centre) in zip(ordered, counted, strict=True)
    )
    taus = tuple(each for each, _ in counted)
    means = tuple(_mean(packed, layer, each) for layer, each in enumerate(ordered) if neurons)
    return Fitted(ordered, taus, means)


def gradient_windows(windows: Windows, parameters: int) -> Windows:
    """Evenly spread windows, or the beginning of the first where the model is large."""
    tokens = max(LEAST_GRADIENT_TOKENS, GRADIENT_WORK // parameters)
    count = min(GRADIENT_WINDOWS, tokens // windows.shape[1])
    if count == 0:
        return windows[:1, :tokens]
    return windows[:: max(1, len(windows) // count)][:count]


def make(
    packed: PackedModel,
    windows: Windows,
    layout: str,
    price: Callable[[Mapping[str, Spec], Sequence[PackedMatrix | None]], Price] = by_bytes,
    *,
    threads: int,
    notes: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress = silent,
) -> PlanFamily:
    """The auto plan of a model, with its evidence.

    Args:
        packed: the model, in the layout that will carry the plan.
        windows: calibration text; the last `HELD_BACK` of it serve the evidence alone.
        layout: "input" or "mixed".
        price: of `converters.allocate.price`: what to spend, bytes or time.
        threads: how many compute.
        notes: origin, to be stored with the plan.
        progress: told of layers and windows.
    """
    fitted = fit(packed, windows[:-HELD_BACK], layout, threads=threads, progress=progress)
    specs = {
        name: each.layout
        for name, each in packed.tensors.items()
        if isinstance(each, PackedMatrix | PackedBundle)
    }
    spent = price(specs, fitted.means)
    expected = family(fitted, layout, specs, spent, fingerprint(packed), notes)
    tried = [expected.at_sparsity(each) for each in TRIED if each <= expected.most]
    with _dense_model(packed, windows.shape[1], threads, progress) as model:
        evidence = measure(model, tried, windows[-HELD_BACK:], progress=progress)
    return _corrected(expected, evidence)


def family(
    fitted: Fitted,
    layout: str,
    specs: Mapping[str, Spec],
    price: Price,
    model: str,
    notes: Mapping[str, Any],
) -> PlanFamily:
    """Spread a falling budget; each row of the table is named by the bytes that it saves.

    Args:
        fitted: as `fit` gives it.
        layout: that `fit` was given.
        specs: tensor name -> how it is stored in the pack that will carry the family.
        price: what to spend.
        model: fingerprint of the model.
        notes: origin.
    """
    pieces = FORMS[layout]
    forms = [
        ({piece: Curve(RATES, costs[piece].costs) for piece in pieces},) for costs in fitted.costs
    ]
    allocator = Allocator(forms, price)
    saved = _Saved(specs, fitted.means)
    dense = Allocation(tuple({} for _ in fitted.costs), (), 0.0, allocator.dense)
    levels, plans = [0.0], [dense]
    for plan in map(allocator.within, BUDGETS):
        if levels[-1] + LEAST_STEP < saved(plan) <= MAX_LEVEL:
            levels.append(saved(plan))
            plans.append(plan)
    gains = {piece: _stacked(fitted, piece, "gain") for piece in pieces}
    return PlanFamily(
        name="auto",
        method="least KL divergence for what is read, by Fisher costs of every piece",
        rule="threshold",
        layout=layout,
        model=model,
        levels=np.array(levels, dtype=np.float32),
        active=1 - np.array(levels, dtype=np.float32),
        tables={piece: _table(fitted, plans, piece) for piece in pieces},
        weights={piece: _stacked(fitted, piece, "weights") for piece in pieces},
        centres={NEURONS: _stacked(fitted, NEURONS, "centre")} if NEURONS in pieces else {},
        gains={piece: gain for piece, gain in gains.items() if gain.any()},
        means=fitted.means,
        notes={**notes, "estimated_kl": [round(plan.cost, 6) for plan in plans]},
    )


def _corrected(expected: PlanFamily, evidence: Sequence[Evidence]) -> PlanFamily:
    """The family with fractions as they were while thinned, which changes what later layers see."""
    asked = [0.0, *(each.sparsity for each in evidence)]
    ratios = [(1 - each.active) / each.sparsity for each in evidence]
    ratios = [ratios[0], *ratios]
    saved = (1 - expected.active) * np.interp(1 - expected.active, asked, ratios)
    rising = np.concatenate([[True], saved[1:] > np.maximum.accumulate(saved)[:-1]])
    return replace(
        expected,
        levels=expected.levels[rising],
        active=(1 - saved)[rising].astype(np.float32),
        tables={piece: table[rising] for piece, table in expected.tables.items()},
        notes={**expected.notes, "evidence": [asdict(each) for each in evidence]},
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


def _block_parameters(packed: PackedModel) -> int:
    shapes = packed.config.tensor_shapes()
    return sum(math.prod(shape) for name, shape in shapes.items() if ".layers." in name)


def _mean(packed: PackedModel, layer: int, costs: Mapping[str, PieceCosts]) -> PackedMatrix:
    weights, centre = BlockWeights(packed, layer), costs[NEURONS].centre
    assert centre is not None
    return weights.packed_like_up(folded(weights.up, weights.down, centre))


def _counted(
    packed: PackedModel,
    windows: Windows,
    costs: Sequence[Mapping[str, PieceCosts]],
    *,
    threads: int,
    progress: Progress,
) -> list[tuple[Mapping[str, Array], Array | None]]:
    """By layer: the score below which each of `QUANTILES` lies, by piece, and centres of gates."""
    found = []
    with (
        _dense_model(packed, windows.shape[1], threads, progress) as model,
        LayerRun(model, windows) as run,
        ThreadPoolExecutor(threads) as pool,
    ):
        for layer in range(run.layers):
            centre, of_layer = None, costs[layer]
            if NEURONS in of_layer:  # scores can be counted once their centres are known
                centres = _Centres(of_layer[NEURONS], pool, threads)
                run.run(layer, centres, advance=False)
                centre = centres.result()
                neurons = replace(of_layer[NEURONS], centre=centre)
                of_layer = {**of_layer, NEURONS: neurons}
            scores = _Scores(of_layer, pool)
            run.run(layer, scores)
            found.append((scores.result(), centre))
            progress("thresholds", layer + 1, run.layers)
    return found


@contextmanager
def _dense_model(
    packed: PackedModel, window: int, threads: int, progress: Progress
) -> Iterator[Model]:
    from sparity_edge.kernels.program.machine import ThreadedMachine

    machine = ThreadedMachine(threads)
    try:
        model = Model(packed, machine, window, default_kv_dtype(packed))
        model.compile(progress)
        yield model
    finally:
        machine.close()


class _Scores:
    """Counts the scores of one layer's pieces as a layer-wise run shows them."""

    def __init__(self, costs: Mapping[str, PieceCosts], pool: ThreadPoolExecutor) -> None:
        self._costs, self._pool = costs, pool
        self._counted = {piece: SiteStatistics(len(each.weights)) for piece, each in costs.items()}

    def __call__(self, vectors: Vectors) -> None:
        """Count a chunk."""
        for done in [self._pool.submit(self._count, piece, vectors) for piece in self._costs]:
            done.result()

    def _count(self, piece: str, vectors: Vectors) -> None:
        skip, costs = max(0, FIRST - vectors.position), self._costs[piece]
        factors = token_factors(getattr(vectors, GAIN_SITES[piece])[skip:], costs.gain)
        x = getattr(vectors, SITES[piece])[skip:]
        change = x if costs.centre is None else x - costs.centre
        self._counted[piece].add(change * costs.weights * factors[:, None])

    def result(self) -> Mapping[str, Array]:
        """Piece -> (QUANTILES,)."""
        return {
            piece: positive(counted.quantiles(QUANTILES))
            for piece, counted in self._counted.items()
        }


class _Centres:
    """Counts gates and finds the neurons' centres, now of all the text; gains are left out."""

    def __init__(self, costs: PieceCosts, pool: ThreadPoolExecutor, threads: int) -> None:
        self._costs, self._pool, self._threads = costs, pool, threads
        self._neurons = NeuronStatistics(len(costs.weights))

    def __call__(self, vectors: Vectors) -> None:
        """Count a chunk."""
        skip = max(0, FIRST - vectors.position)
        jobs = self._neurons.jobs(vectors.gate[skip:], vectors.up[skip:], self._threads)
        for done in [self._pool.submit(job) for job in jobs]:
            done.result()

    def result(self) -> Array:
        """(neurons,)."""
        weights, centre = self._costs.weights, np.asarray(self._costs.centre, dtype=np.float64)
        for _ in range(ROUNDS):
            tau = self._neurons.quantiles(weights, np.array([CENTRE_RATE]), centre)[0]
            centre = self._neurons.centre_of_skipped(tau / weights, centre)
        return centre.astype(np.float32)
