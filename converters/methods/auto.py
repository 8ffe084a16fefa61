"""The auto plan (ours): least KL divergence at a budget, over all pieces and layers.

Costs and thresholds of every piece come from `auto_fit`, the shares that are dropped from a
Lagrange multiplier for each level of the dial (allocate/lagrange.py). A layer either drops inputs
of up and down or skips whole neurons around centred gates (with ReLU around zero), whichever the
pack can store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from converters.allocate.curves import curves_here
from converters.allocate.evidence import Evidence, measure
from converters.allocate.lagrange import Allocation, Allocator, Curve, Price
from converters.allocate.price import Spec, by_bytes, by_time, dense_bytes
from converters.calibration.checkpoint import NOWHERE, Checkpoint
from converters.calibration.fisher import RATES
from converters.calibration.observe import dense_model
from converters.calibration.windows import Windows
from converters.methods.auto_fit import QUANTILES, Fitted, fit, layer_parameters
from converters.methods.family import ModelMethod, ModelView
from sparity_edge.choices import MAX_LEVEL
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.model.model import Model
from sparity_edge.packed.bundle import PackedBundle
from sparity_edge.packed.folder import PackedModel
from sparity_edge.packed.layout import PackedMatrix
from sparity_edge.plans.plan import NEURONS, PlanFamily
from sparity_edge.plans.plan_file import fingerprint
from sparity_edge.progress import Progress, silent

BUDGETS = np.linspace(0.98, 0.1, 45)  # of the dense model's bytes or time
HELD_BACK = 2  # windows that only the evidence is taken of, or their beginnings:
EVIDENCE_WORK, LEAST_EVIDENCE = 1 << 40, 512  # tokens x parameters, and tokens of each at least
TRIED = (0.15, 0.25, 0.35, 0.5, 0.65)  # sparsities that the evidence is taken at
LEAST_STEP = 0.01  # of sparsity between two rows of the table
BY_LEVEL = ("estimated_kl", "estimated_speed")  # notes with a number for each row of the table
ALWAYS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj")
FORMS = {"input": (*ALWAYS, "up_proj", "down_proj"), "mixed": (*ALWAYS, NEURONS)}
# Of the FFN's weights: centred gates with a larger folded matrix save too little to be the default.
# Measured: at 0.125 (SmolLM2) thresholds on inputs are better, at 0.057 (Qwen 1.5B) centred gates.
MOST_FOLDED = 0.1


def layouts(config: ModelConfig) -> tuple[str, ...]:
    """The layouts that serve a model, the better one first."""
    share = config.hidden_size / (3 * config.intermediate_size)
    whole = share < MOST_FOLDED or config.activation.zeroes  # whose neurons need no folded matrix
    return ("mixed", "input") if whole else ("input", "mixed")


def make(
    packed: PackedModel,
    windows: Windows,
    layout: str,
    *,
    threads: int,
    notes: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress = silent,
    checkpoint: Checkpoint = NOWHERE,
) -> PlanFamily:
    """The auto plan of a model, with its evidence.

    Args:
        packed: the model, in the layout that will carry the plan.
        windows: calibration text; the last `HELD_BACK` of it serve the evidence alone.
        layout: "input" or "mixed".
        threads: how many compute.
        notes: origin, to be stored with the plan.
        progress: told of layers and windows.
        checkpoint: what a former run has left, and where this one leaves what it has found.
    """
    fitted = fit(
        packed, windows[:-HELD_BACK], layout,
        threads=threads, progress=progress, checkpoint=checkpoint,
    )  # fmt: skip
    specs = specs_of(packed)
    curves = curves_here()
    spent = by_time(specs, fitted.means, curves)
    origin = {**notes, "cost_curves": curves.name}
    expected = family(fitted, layout, specs, spent, fingerprint(packed), origin)
    held_out = held_back(packed, windows)
    with dense_model(packed, held_out.shape[1], threads, progress) as model:
        return measured(model, expected, held_out, progress, checkpoint)


def held_back(packed: PackedModel, windows: Windows) -> Windows:
    """The part of calibration text that serves the evidence alone."""
    tokens = max(LEAST_EVIDENCE, EVIDENCE_WORK // layer_parameters(packed) // HELD_BACK)
    return windows[-HELD_BACK:, :tokens]


def measured(
    model: Model,
    expected: PlanFamily,
    held_out: Windows,
    progress: Progress,
    checkpoint: Checkpoint = NOWHERE,
) -> PlanFamily:
    """A family with its evidence, its fractions those that were measured."""
    tried = [expected.at_sparsity(each) for each in TRIED if each <= expected.most]
    evidence = measure(model, tried, held_out, progress=progress, checkpoint=checkpoint)
    return _corrected(expected, evidence)


def specs_of(packed: PackedModel) -> dict[str, Spec]:
    """How each matrix and bundle of a model is stored."""
    return {
        name: each.layout
        for name, each in packed.tensors.items()
        if isinstance(each, PackedMatrix | PackedBundle)
    }


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
    saved = _Saved(specs, fitted.means)
    levels, plans = [0.0], [Allocation(tuple({} for _ in fitted.costs), (), 0.0, 0.0)]
    # Where no more time can be saved the dial goes on with bytes: what that gains is measured.
    for spent in (price, by_bytes(specs, fitted.means)):
        for plan in map(Allocator(forms, spent).within, BUDGETS):
            if levels[-1] + LEAST_STEP < saved(plan) <= MAX_LEVEL:
                levels.append(saved(plan))
                plans.append(plan)
    speeds = [_speed(plan, specs, pieces, price) for plan in plans]
    more = {
        "estimated_kl": [round(plan.cost, 6) for plan in plans],
        "estimated_speed": speeds,  # of the layers' products, over dense decoding
    }
    rates = [plan.rates for plan in plans]
    return of_rates(AUTO, fitted, layout, levels, rates, model, {**notes, **more})


def of_rates(
    method: ModelMethod,
    fitted: Fitted,
    layout: str,
    levels: Sequence[float],
    rates: Sequence[Sequence[Mapping[str, float]]],
    model: str,
    notes: Mapping[str, Any],
) -> PlanFamily:
    """The family that drops given shares of every piece.

    Args:
        method: whose family it is.
        fitted: scores and thresholds.
        layout: "input" or "mixed".
        levels: sparsities of the rows, from 0.
        rates: of each row, by layer: piece -> share of channels to drop; what is missing is dense.
        model: fingerprint of the model.
        notes: evidence and origin.
    """
    pieces = FORMS[layout]
    gains = {piece: _stacked(fitted, piece, "gain") for piece in pieces}
    return PlanFamily(
        name=method.name,
        method=method.about,
        rule="threshold",
        layout=layout,
        model=model,
        levels=np.array(levels, dtype=np.float32),
        active=1 - np.array(levels, dtype=np.float32),
        tables={piece: _table(fitted, rates, piece) for piece in pieces},
        weights={piece: _stacked(fitted, piece, "weights") for piece in pieces},
        centres={NEURONS: _stacked(fitted, NEURONS, "centre")} if NEURONS in pieces else {},
        gains={piece: gain for piece, gain in gains.items() if gain.any()},
        means=fitted.means,
        notes=dict(notes),
    )


def _speed(
    plan: Allocation, specs: Mapping[str, Spec], pieces: Sequence[str], price: Price
) -> float:
    """Speed of the layers' products over that of dense decoding, by a price that is time."""
    taken = sum(
        float(price(piece, layer, np.array([1 - rates.get(piece, 0.0)]))[0])
        for layer, rates in enumerate(plan.rates)
        for piece in pieces
    )
    return round(dense_bytes(specs, pieces, len(plan.rates)) / taken, 3) if any(plan.rates) else 1.0


def _corrected(expected: PlanFamily, evidence: Sequence[Evidence]) -> PlanFamily:
    """The family with fractions as they were while sparse, which changes what later layers see."""
    asked = [0.0, *(each.sparsity for each in evidence), 1.0]
    found = [0.0, *(1 - each.active for each in evidence), 1.0]
    saved = np.interp(1 - expected.active, asked, found)
    rising = np.concatenate([[True], saved[1:] > np.maximum.accumulate(saved)[:-1]])
    return replace(
        expected,
        levels=expected.levels[rising],
        active=(1 - saved)[rising].astype(np.float32),
        tables={piece: table[rising] for piece, table in expected.tables.items()},
        notes={
            **expected.notes,
            **{
                name: np.array(expected.notes[name])[rising].tolist()
                for name in BY_LEVEL
                if name in expected.notes
            },
            "evidence": [asdict(each) for each in evidence],
        },
    )


class _Saved:
    """The share of a dense pack's decoder weight bytes that an allocation does not read."""

    def __init__(
        self, specs: Mapping[str, Spec], means: Sequence[PackedMatrix | None] = ()
    ) -> None:
        self._price = by_bytes(specs, means)
        layers = [spec for name, spec in specs.items() if ".layers." in name]
        self._dense = sum(spec.dense_nbytes for spec in layers)
        self._more = sum(spec.nbytes for spec in layers) - self._dense

    def __call__(self, plan: Allocation) -> float:
        saved = -float(self._more)
        for layer, rates in enumerate(plan.rates):
            for piece, rate in rates.items():
                dense, sparse = self._price(piece, layer, np.array([1.0, 1 - rate]))
                saved += float(dense - sparse)
        return saved / self._dense


def _table(fitted: Fitted, rates: Sequence[Sequence[Mapping[str, float]]], piece: str) -> Any:
    """Thresholds (levels, layers) of one piece; 0 where it stays dense."""
    table = np.zeros((len(rates), len(fitted.taus)), dtype=np.float32)
    for row, layers in zip(table, rates, strict=True):
        for layer, each in enumerate(layers):
            if piece in each:
                row[layer] = np.interp(each[piece], QUANTILES, fitted.taus[layer][piece])
    return table


def _stacked(fitted: Fitted, piece: str, name: str) -> Any:
    return np.stack([getattr(costs[piece], name) for costs in fitted.costs])


def _fit(view: ModelView) -> PlanFamily:
    return make(
        view.packed,
        view.windows,
        view.layout,
        threads=view.threads,
        notes=view.notes,
        progress=view.progress,
        checkpoint=view.checkpoint,
    )


AUTO = ModelMethod(
    "auto", "least KL divergence for what is read, by Fisher costs of every piece", layouts, _fit
)
