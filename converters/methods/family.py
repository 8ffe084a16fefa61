"""What all methods share: from the quantiles of each layer to a `PlanFamily` over the dial.

A method of layers (`Method`) looks at one layer at a time and says for each level which thresholds
it sets and what share of channels that keeps; here the layers become tables, and shares become
bytes. A method of models (`ModelMethod`) looks at the whole of one and makes the family itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.allocate.price import Spec, skippable_bytes
from converters.calibration.checkpoint import NOWHERE, Checkpoint
from converters.calibration.histograms import Array
from converters.calibration.layer_weights import LayerWeights
from converters.calibration.statistics import LayerStatistics
from converters.calibration.windows import Windows
from converters.fan_out import ALONE, Spread
from sparity_edge.arrays import Floats
from sparity_edge.choices import MAX_LEVEL
from sparity_edge.config.model_config import ADAPTER, ModelConfig
from sparity_edge.packed.folder import PackedModel
from sparity_edge.packed.layout import PackedMatrix
from sparity_edge.plans.plan import NEURONS, SITES, PlanFamily
from sparity_edge.progress import Progress

LEVELS = np.linspace(0, MAX_LEVEL, 37)  # steps of 0.025
SMALLEST = float(np.finfo(np.float32).tiny)
# Pack layouts that store what a method skips so that it can be skipped, by the layout it asks for:
# the quickest first, since what is never skipped is read fastest as dense packs store it.
SERVED_BY = {
    "ffn": ("ffn", "neurons", "mixed"), "neurons": ("neurons", "mixed"), "input": ("input",)
}  # fmt: skip


@dataclass(frozen=True)
class LayerView:
    """What a method may look at to fit one layer."""

    statistics: LayerStatistics
    weights: LayerWeights
    sample: Floats  # (tokens, hidden), the layer's input at the beginning of the last window
    threads: int = 1  # that may compute


@dataclass(frozen=True)
class LayerFit:
    """One layer of a family over `LEVELS`; piece -> value."""

    taus: Mapping[str, Array]  # (levels,)
    kept: Mapping[str, Array]  # (levels,) expected share of channels that stay active
    weights: Mapping[str, Array] = field(default_factory=dict)  # (channels,)
    centres: Mapping[str, Array] = field(default_factory=dict)  # (channels,)
    mean: PackedMatrix | None = None
    predictors: Mapping[str, Array] = field(default_factory=dict)  # (PREDICTOR,), rule `scaled`
    facts: Mapping[str, float] = field(default_factory=dict)  # for the method's `allocate`


@dataclass(frozen=True)
class Method:
    """A published rule, or ours, that is fitted layer by layer."""

    name: str
    about: str  # one line with its source
    layout: str  # a key of `SERVED_BY`: how its pieces have to be stored
    fit: Callable[[LayerView], LayerFit]
    slow: bool = False  # made only when it is asked for by name
    rule: str = "threshold"  # one of `plan.RULES`; by `top`, taus are shares dropped
    # Fits of all layers -> those with rates that differ by layer; None: the same in each.
    allocate: Callable[[Sequence[LayerFit], Mapping[str, Spec]], list[LayerFit]] | None = None
    unsuited: Callable[[ModelConfig], str | None] | None = None  # why a model cannot have it


@dataclass(frozen=True)
class ModelView:
    """What a method may look at to fit a whole model."""

    packed: PackedModel  # in the layout that will carry the plan
    layout: str
    windows: Windows  # calibration text
    notes: Mapping[str, Any]  # origin, to be stored with the plan
    threads: int
    progress: Progress
    checkpoint: Checkpoint = NOWHERE  # of this method, model and text
    spread: Spread = ALONE  # where independent tasks run


@dataclass(frozen=True)
class ModelMethod:
    """A rule that needs all layers at once, say to spread one budget over them."""

    name: str
    about: str  # one line with its source
    layouts: Callable[[ModelConfig], Sequence[str]]  # that serve a model, the best one first
    fit: Callable[[ModelView], PlanFamily]
    slow: bool = False  # made only when it is asked for by name


def scalar(view: LayerView, pieces: Mapping[str, Array | float]) -> LayerFit:
    """One threshold on |x| for each piece, the quantile of its site.

    Args:
        view: of the layer.
        pieces: piece -> the share to drop at each level; 1.0 stands for the level itself.
    """
    taus, kept = {}, {}
    for piece, rates in pieces.items():
        dropped = LEVELS * rates if isinstance(rates, float) else rates
        taus[piece] = positive(view.statistics.sites[SITES[piece]].quantiles(dropped))
        kept[piece] = 1 - dropped
    return LayerFit(taus, kept)


def neurons(
    view: LayerView, weights: Array | None, centre: Array | None = None, mean: Any = None
) -> LayerFit:
    """The FFN's neurons by |g_i - centre_i| * weight_i, the same share in every layer."""
    weights = positive(np.ones(view.statistics.neurons.neurons) if weights is None else weights)
    scores = view.statistics.neurons.quantiles(
        weights, LEVELS[1:], 0.0 if centre is None else centre
    )
    plain = bool((weights == 1).all())
    return LayerFit(
        taus={NEURONS: np.concatenate([[0], positive(scores)])},
        kept={NEURONS: 1 - LEVELS},
        weights={} if plain else {NEURONS: weights},
        centres={} if centre is None else {NEURONS: centre},
        mean=mean,
    )


def join(*fits: LayerFit) -> LayerFit:
    """Fits of different pieces of one layer as one."""
    merged: dict[str, Any] = {}
    for name in ("taus", "kept", "weights", "centres", "predictors", "facts"):
        merged[name] = {key: value for fit in fits for key, value in getattr(fit, name).items()}
    mean = next((fit.mean for fit in fits if fit.mean is not None), None)
    return LayerFit(**merged, mean=mean)


def positive(values: Array) -> Array:
    """Values of 0, which as a tau would mean "dense", become the smallest number above it."""
    return np.maximum(np.asarray(values, dtype=np.float64), SMALLEST)


def assemble(
    method: Method,
    fits: Sequence[LayerFit],
    specs: Mapping[str, Spec],
    model: str,
    notes: Mapping[str, Any],
) -> PlanFamily:
    """The family of all layers.

    Args:
        method: whose family it is.
        fits: by layer.
        specs: tensor name -> how it is stored in the pack that will carry the family.
        model: fingerprint of the model.
        notes: evidence and origin.
    """
    if method.allocate is not None:
        fits = method.allocate(fits, specs)
    active = _active(fits, specs)
    levels, columns = _saving(active)
    tables = {
        piece: np.array([np.interp(levels, LEVELS, fit.taus[piece]) for fit in fits]).T
        for piece in fits[0].taus
    }
    for table in tables.values():
        table[0] = 0
    means = tuple(fit.mean for fit in fits)
    return PlanFamily(
        name=method.name,
        method=method.about,
        rule=method.rule,
        layout=method.layout,
        model=model,
        levels=levels.astype(np.float32),
        active=columns.astype(np.float32),
        tables={piece: table.astype(np.float32) for piece, table in tables.items()},
        weights=_stacked(fits, "weights"),
        centres=_stacked(fits, "centres"),
        predictors=_stacked(fits, "predictors"),
        means=means if any(mean is not None for mean in means) else (),
        notes=dict(notes),
    )


def _stacked(fits: Sequence[LayerFit], name: str) -> dict[str, Any]:
    first: Mapping[str, Array] = getattr(fits[0], name)
    return {
        piece: np.stack([getattr(fit, name)[piece] for fit in fits]).astype(np.float32)
        for piece in first
    }


def _active(fits: Sequence[LayerFit], specs: Mapping[str, Spec]) -> Array:
    """Expected active weight fraction at each level: bytes read over those of a dense pack."""
    total = sum(spec.nbytes for name, spec in specs.items() if ".layers." in name)
    dense = sum(
        spec.dense_nbytes
        for name, spec in specs.items()
        if ".layers." in name and ADAPTER not in name
    )
    read = np.full(len(LEVELS), float(total))
    for layer, fit in enumerate(fits):
        for piece, kept in fit.kept.items():
            read -= (1 - kept) * skippable_bytes(specs, layer, piece)
        if fit.mean is not None:
            read[1:] += fit.mean.layout.nbytes
    read[0] = dense  # level 0 stands for dense decoding
    return read / dense


def _saving(active: Array) -> tuple[Array, Array]:
    """The levels at which less is read than at any lower one, and their fractions.

    Where the first levels cost more than they save (a folded matrix has to be paid for), the first
    one kept is that at which the balance is struck, so that the dial begins there.
    """
    below = np.flatnonzero(active < 1)
    first = int(below[0])
    if first <= 1:
        return LEVELS, active
    even = np.interp(-1, -active[first - 1 : first + 1], LEVELS[first - 1 : first + 1]) + 1e-3
    at_even = np.interp(even, LEVELS[first - 1 : first + 1], active[first - 1 : first + 1])
    levels = np.concatenate([[0, even], LEVELS[first:]])
    return levels, np.concatenate([[1, at_even], active[first:]])
