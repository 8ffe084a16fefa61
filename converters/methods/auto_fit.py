"""What dropping channels of every piece costs, and the thresholds that drop a given share.

One backward pass gives the costs (fisher.py), one pass over the calibration text the thresholds.
The auto plan is made of these (auto.py); nothing here knows of a budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from converters.calibration.checkpoint import NOWHERE, Checkpoint
from converters.calibration.fisher import (
    CENTRE_RATE,
    GAIN_SITES,
    ROUNDS,
    PieceCosts,
    layer_costs,
    token_factors,
)
from converters.calibration.gradient import backward
from converters.calibration.gradient_layer import Slopes
from converters.calibration.histograms import MAGNITUDES, Array, count_scores, quantiles
from converters.calibration.layer_weights import LayerWeights
from converters.calibration.observe import dense_model
from converters.calibration.resuming import (
    Counted,
    counted_from,
    counted_to,
    gradients_from,
    gradients_to,
)
from converters.calibration.statistics import FIRST, NeuronStatistics
from converters.calibration.windows import Windows
from converters.methods.centred import folded
from converters.methods.family import positive
from sparity_edge.model.layer_run import LayerRun, Vectors
from sparity_edge.packed.folder import PackedModel
from sparity_edge.packed.layout import PackedMatrix
from sparity_edge.plans.plan import NEURONS, SITES
from sparity_edge.progress import Progress, silent

# Tokens x parameters of the layers that gradients are taken of, within bounds: four windows of
# SmolLM2, two of 524 tokens of the 1.5B model, whose 10^12 take a minute. Several, as threads have
# a window each; and long ones: windows of 512 gave SmolLM2 KL 0.19 at 0.3 where 1024 give 0.15.
GRADIENT_WORK = 5 << 38
MOST_GRADIENT_TOKENS, LEAST_GRADIENT_TOKENS = 4096, 512
COUNTED_WINDOWS = 4  # that thresholds are learned of: 8 or all 30 of them gave the same KL
QUANTILES = np.linspace(0, 0.95, 191)  # shares at which thresholds are known


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
    checkpoint: Checkpoint = NOWHERE,
) -> Fitted:
    """Measure costs and thresholds.

    Args:
        packed: the model, dense while it is measured.
        windows: calibration text; gradients are taken over `gradient_windows` of it.
        layout: "input" or "mixed".
        threads: how many compute.
        seed: of the labels that the gradient pass samples.
        progress: told of layers.
        checkpoint: what a former run has left, and where this one leaves what it has found.
    """
    neurons = layout == "mixed"
    # Gates of ReLU are zero where they are small: nothing is left to be folded.
    centred = not packed.config.activation.zeroes
    costs, begun = gradients_from(checkpoint.load("gradients"))
    if begun and set(costs) != set(range(begun.layer, packed.config.num_hidden_layers)):
        costs, begun = {}, None

    def visit(layer: int, slopes: list[Slopes]) -> None:
        costs[layer] = layer_costs(slopes, neurons=neurons, centred=centred, threads=threads)

    some = gradient_windows(windows, layer_parameters(packed))
    counting = windows[:: -(-len(windows) // COUNTED_WINDOWS)]
    backward(
        packed, some, visit, seed=seed, threads=threads, progress=progress, begun=begun,
        streams=partial(_streams, packed, some, threads, progress),
        halfway=lambda at: checkpoint.offer(
            "gradients", lambda: gradients_to(costs, at), last=at.layer == 0
        ),
    )  # fmt: skip
    ordered = tuple(costs[layer] for layer in range(len(costs)))
    counted = _counted(packed, counting, ordered, threads, progress, checkpoint)
    ordered = tuple(
        {**each, NEURONS: replace(each[NEURONS], centre=centre)} if centre is not None else each
        for each, (_, centre) in zip(ordered, counted, strict=True)
    )
    taus = tuple(each for each, _ in counted)
    folding = neurons and centred
    means = tuple(_mean(packed, layer, each) for layer, each in enumerate(ordered) if folding)
    return Fitted(ordered, taus, means)


def _streams(
    packed: PackedModel, windows: Windows, threads: int, progress: Progress, layers: int
) -> Array:
    """The residual stream before the first layers and behind them: (layers + 1, *windows, hidden).

    By the kernels that read prompts, in a quarter of NumPy's time.
    """
    with (
        dense_model(packed, windows.shape[1], threads, progress) as model,
        LayerRun(model, windows) as run,
    ):
        streams = np.empty((layers + 1, *run.residual.shape), dtype=np.float32)
        streams[0] = run.residual
        for layer in range(layers):
            run.run(layer)
            streams[layer + 1] = run.residual
            progress("forward", layer + 1, layers)
    return streams


def gradient_windows(windows: Windows, parameters: int) -> Windows:
    """Evenly spread windows, or the beginnings of two where the model is large."""
    tokens = min(MOST_GRADIENT_TOKENS, max(LEAST_GRADIENT_TOKENS, GRADIENT_WORK // parameters))
    count = min(len(windows), max(2, tokens // windows.shape[1]))
    return windows[:: len(windows) // count][:count, : tokens // count]


def layer_parameters(packed: PackedModel) -> int:
    """How many weights the decoder layers have."""
    shapes = packed.config.tensor_shapes()
    return sum(math.prod(shape) for name, shape in shapes.items() if ".layers." in name)


def _mean(packed: PackedModel, layer: int, costs: Mapping[str, PieceCosts]) -> PackedMatrix:
    weights, centre = LayerWeights(packed, layer), costs[NEURONS].centre
    assert centre is not None
    return weights.packed_folded(folded(weights.up, weights.down, centre))


def _counted(
    packed: PackedModel,
    windows: Windows,
    costs: Sequence[Mapping[str, PieceCosts]],
    threads: int,
    progress: Progress,
    checkpoint: Checkpoint,
) -> Counted:
    """By layer: the score below which each of `QUANTILES` lies, by piece, and centres of gates."""
    with (
        dense_model(packed, windows.shape[1], threads, progress) as model,
        LayerRun(model, windows) as run,
        ThreadPoolExecutor(threads) as pool,
    ):
        found = counted_from(checkpoint.load("thresholds"), run.residual)
        for layer in range(len(found), run.layers):
            centre, of_layer = None, costs[layer]
            if (
                NEURONS in of_layer and not packed.config.activation.zeroes
            ):  # scores can be counted once their centres are known
                centres = _Centres(of_layer[NEURONS], pool, threads)
                run.run(layer, centres, advance=False)
                centre = centres.result()
                neurons = replace(of_layer[NEURONS], centre=centre)
                of_layer = {**of_layer, NEURONS: neurons}
            scores = _Scores(of_layer, pool)
            run.run(layer, scores)
            found.append((scores.result(), centre))
            checkpoint.offer(
                "thresholds", lambda: counted_to(found, run.residual), last=layer + 1 == run.layers
            )
            progress("thresholds", layer + 1, run.layers)
    return found


class _Scores:
    """Counts the scores of one layer's pieces as a layer-wise run shows them."""

    def __init__(self, costs: Mapping[str, PieceCosts], pool: ThreadPoolExecutor) -> None:
        self._costs, self._pool = costs, pool
        self._counts = {piece: np.zeros(MAGNITUDES, dtype=np.int64) for piece in costs}

    def __call__(self, vectors: Vectors) -> None:
        """Count a chunk."""
        for done in [self._pool.submit(self._count, piece, vectors) for piece in self._costs]:
            done.result()

    def _count(self, piece: str, vectors: Vectors) -> None:
        skip, costs = max(0, FIRST - vectors.position), self._costs[piece]
        factors = token_factors(getattr(vectors, GAIN_SITES[piece])[skip:], costs.gain)
        x = getattr(vectors, SITES[piece])[skip:]
        centre = np.zeros_like(costs.weights) if costs.centre is None else costs.centre
        count_scores(x, centre, costs.weights, factors, self._counts[piece])

    def result(self) -> Mapping[str, Array]:
        """Piece -> (QUANTILES,)."""
        return {
            piece: positive(quantiles(counts, QUANTILES)) for piece, counts in self._counts.items()
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
