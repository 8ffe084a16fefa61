"""EvoPress (arXiv 2410.14649) for activations: rates of every piece of every layer by search.

The scores are those of the auto plan, so a candidate is a table of thresholds and no weight is
touched. Fitness is the KL divergence to the dense model on calibration text, the search itself in
allocate/evolution.py. A budget is bytes; as thresholds that are learnt of the dense model skip less
or more once everything is sparse, the logarithm of KL is compared at equal bytes read, along the
line that the start has. The search runs at a few budgets; what it changes of its start is
interpolated between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.allocate.evolution import Effort, Genes, Genome, Stage, evolve
from converters.allocate.judge import Judge, Judged
from converters.allocate.lagrange import Allocator, Curve
from converters.allocate.price import Spec, by_bytes, skippable_bytes
from converters.allocate.starts import scheduled, shapes
from converters.calibration.fisher import RATES
from converters.calibration.histograms import Array
from converters.calibration.observe import dense_model
from converters.calibration.windows import Windows
from converters.methods import auto
from converters.methods.auto_fit import Fitted, fit, layer_parameters
from converters.methods.family import ModelMethod, ModelView
from sparity_edge.choices import MAX_LEVEL
from sparity_edge.plans.plan import PlanFamily, SparsityPlan
from sparity_edge.plans.plan_file import fingerprint

Rates = Sequence[Mapping[str, float]]  # by layer: piece -> share of channels to drop
Start = Callable[["Space", float], Array]  # (space, sparsity) -> (genes,) rates

BUDGETS = (0.3, 0.5, 0.7)  # sparsities that are searched
PLACE = 256  # tokens that a candidate reads from a cold start: what a model reads at once
PLACES = 64  # of the calibration text, evenly spread
STAGES = (Stage(4, 1), Stage(1, 6))
OFFSPRING = 16
# Tokens x parameters of the layers that all generations of one budget read: SmolLM2 takes about a
# third of an hour for it on two cores.
WORK = 90 << 40
LEAST_GENERATIONS, MOST_GENERATIONS = 4, 400
STEP = 0.02  # of sparsity between two rows of the table, and to both sides of a start's line
LINE_PLACES = 8  # that a start's line is measured on


@dataclass(frozen=True)
class Task:
    """A candidate to be judged."""

    rates: Rates
    places: tuple[int, ...]


Run = Callable[[Sequence[Task]], Sequence[Judged]]  # judges candidates, in their order


class Space:
    """What can be left unread of a model.

    Args:
        specs: tensor name -> how it is stored.
        fitted: the model's scores, for its folded matrices.
        layout: "input" or "mixed".
    """

    def __init__(self, specs: Mapping[str, Spec], fitted: Fitted, layout: str) -> None:
        self.pieces = [
            (layer, piece) for layer in range(len(fitted.costs)) for piece in auto.FORMS[layout]
        ]
        self.layers = [layer for layer, _ in self.pieces]
        self.sizes = np.array(
            [skippable_bytes(specs, layer, piece) for layer, piece in self.pieces], dtype=np.float64
        )
        self.genes = Genes(self.sizes)
        of_layers = [spec for name, spec in specs.items() if ".layers." in name]
        self._dense = sum(spec.dense_nbytes for spec in of_layers)
        self._more = sum(spec.nbytes for spec in of_layers) - self._dense
        self._more += sum(mean.layout.nbytes for mean in fitted.means if mean is not None)

    def unread(self, sparsity: float) -> float:
        """Bytes that a genome of a sparsity leaves unread."""
        return sparsity * self._dense + self._more

    def sparsity(self, rates: Array) -> float:
        """The share of a dense pack's bytes that rates by gene do not read."""
        return float((rates @ self.sizes - self._more) / self._dense)

    def level(self, sparsity: float) -> float:
        """The mean rate of a sparsity, within what the dial allows."""
        return min(MAX_LEVEL, self.unread(sparsity) / float(self.sizes.sum()))

    def genome(self, rates: Array, sparsity: float) -> Genome:
        """The genome of a sparsity that is nearest to some rates."""
        return self.genes.genome(rates, self.unread(sparsity))

    def by_layer(self, rates: Array) -> Rates:
        """Rates by gene as those of each layer's pieces; what is 0 is missing."""
        found: list[dict[str, float]] = [{} for _ in range(self.layers[-1] + 1)]
        for (layer, piece), rate in zip(self.pieces, rates, strict=True):
            if rate > 0:
                found[layer][piece] = float(rate)
        return found

    def by_gene(self, rates: Rates) -> Array:
        """What `by_layer` undoes."""
        return np.array([rates[layer].get(piece, 0.0) for layer, piece in self.pieces])


def uniform(space: Space, sparsity: float) -> Array:
    """The start at which every piece drops the same share."""
    shape = shapes(space.layers[-1] + 1)["uniform"]
    return scheduled(shape, space.layers, space.sizes, space.level(sparsity), 0.0)


class Fisher:
    """The start of least estimated KL divergence for its bytes, as the auto plan has it."""

    def __init__(self, specs: Mapping[str, Spec], fitted: Fitted, layout: str) -> None:
        pieces = auto.FORMS[layout]
        forms = [
            ({piece: Curve(RATES, costs[piece].costs) for piece in pieces},)
            for costs in fitted.costs
        ]
        self._allocator = Allocator(forms, by_bytes(specs, fitted.means))

    def __call__(self, space: Space, sparsity: float) -> Array:
        """(genes,) rates."""
        return space.by_gene(self._allocator.within(1 - sparsity).rates)


class Candidates:
    """Judges candidates: a model, what their thresholds are, and the text.

    Args:
        judge: of the model.
        fitted: scores and thresholds.
        layout: "input" or "mixed".
    """

    def __init__(self, judge: Judge, fitted: Fitted, layout: str) -> None:
        self._judge, self._fitted, self._layout = judge, fitted, layout

    def __call__(self, task: Task) -> Judged:
        """Measure one."""
        return self._judge(plan_of(task.rates, self._fitted, self._layout), task.places)


def plan_of(rates: Rates, fitted: Fitted, layout: str) -> SparsityPlan:
    """The plan that drops given shares."""
    dense: Rates = [{} for _ in rates]
    levels = (0.0, MAX_LEVEL)
    return auto.of_rates(EVOPRESS, fitted, layout, levels, (dense, rates), "", {}).at_level(
        MAX_LEVEL
    )


class Scores:
    """The score of genomes at one budget: the logarithm of KL at equal bytes read.

    Args:
        space: of the model.
        run: judges candidates.
        start: gives the line along which bytes and KL are weighed.
        sparsity: the budget.
        places: of the text.
    """

    def __init__(self, space: Space, run: Run, start: Start, sparsity: float, places: int) -> None:
        self._space, self._run = space, run
        ends = [space.genome(start(space, at), at) for at in (sparsity - STEP, sparsity + STEP)]
        less, more = self.judged(ends, range(min(LINE_PLACES, places)))
        fall = np.log(more.kl) - np.log(less.kl)
        self._steep = max(0.0, float(fall / max(less.active - more.active, STEP / 2)))

    def judged(self, genomes: Sequence[Genome], places: Sequence[int]) -> Sequence[Judged]:
        """KL and bytes of genomes."""
        space = self._space
        return self._run(
            [Task(space.by_layer(space.genes.rates(each)), tuple(places)) for each in genomes]
        )

    def __call__(self, genomes: Sequence[Genome], places: Sequence[int]) -> list[float]:
        """A number for each, the lower the better."""
        return [
            float(np.log(each.kl) + self._steep * each.active)
            for each in self.judged(genomes, places)
        ]


def effort(parameters: int) -> Effort:
    """How much is searched at one budget in a model of so many parameters in its layers."""
    judged = Effort(1, OFFSPRING, STAGES).judged * PLACE
    count = WORK // (judged * parameters)
    return Effort(min(MOST_GENERATIONS, max(LEAST_GENERATIONS, count)), OFFSPRING, STAGES)


def places_of(windows: Windows) -> Windows:
    """The places of calibration text that candidates are judged on, evenly spread."""
    length = min(PLACE, windows.shape[1])
    per_window = windows.shape[1] // length
    every = windows[:, : per_window * length].reshape(-1, length)
    return every[:: max(1, len(every) // PLACES)][:PLACES]


def table(
    space: Space, start: Start, found: Mapping[float, Genome]
) -> tuple[list[float], list[Rates]]:
    """Sparsities and rates of all rows of a family.

    What a search changed of its start is interpolated between the budgets; below the first of them
    it shrinks with the sparsity, beyond the last one it stays.

    Args:
        space: of the model.
        start: where the searches began.
        found: the genome of each budget.
    """
    budgets = [0.0, *sorted(found)]
    changes = [np.zeros(len(space.sizes))] + [
        space.genes.rates(found[at]) - space.genes.rates(space.genome(start(space, at), at))
        for at in budgets[1:]
    ]
    levels, rows = [0.0], [space.by_layer(np.zeros(len(space.sizes)))]
    for sparsity in np.arange(STEP, MAX_LEVEL + STEP / 2, STEP):
        change = [np.interp(sparsity, budgets, column) for column in np.array(changes).T]
        rates = space.genes.rates(space.genome(start(space, sparsity) + change, sparsity))
        reached = space.sparsity(rates)
        if levels[-1] + STEP / 2 < reached <= MAX_LEVEL:
            levels.append(reached)
            rows.append(space.by_layer(rates))
    return levels, rows


def _fit(view: ModelView) -> PlanFamily:
    text = view.windows[: -auto.HELD_BACK]
    fitted = fit(
        view.packed, text, view.layout,
        threads=view.threads, progress=view.progress, checkpoint=view.checkpoint,
    )  # fmt: skip
    specs = auto.specs_of(view.packed)
    space, start = Space(specs, fitted, view.layout), Fisher(specs, fitted, view.layout)
    places, found = places_of(text), dict[float, Genome]()
    held_out = auto.held_back(view.packed, view.windows)
    with dense_model(view.packed, held_out.shape[1], view.threads, view.progress) as model:
        candidates = Candidates(Judge(model, places), fitted, view.layout)

        def run(tasks: Sequence[Task]) -> list[Judged]:
            return [candidates(task) for task in tasks]

        history: dict[str, Any] = {}
        for budget in BUDGETS:
            genome = space.genome(start(space, budget), budget)
            name = f"search-{budget:.0%}".replace("%", "")
            found[budget], scores = evolve(
                space.genes, genome, Scores(space, run, start, budget, len(places)),
                effort(layer_parameters(view.packed)), len(places),
                name=name, progress=view.progress, checkpoint=view.checkpoint,
            )  # fmt: skip
            history[str(budget)] = [round(float(old - new), 4) for old, new in scores]
        levels, rows = table(space, start, found)
        notes = {**view.notes, "gained": history}  # logarithm of KL, by generation
        expected = auto.of_rates(
            EVOPRESS, fitted, view.layout, levels, rows, fingerprint(view.packed), notes
        )
        return auto.measured(model, expected, held_out, view.progress, view.checkpoint)


EVOPRESS = ModelMethod(
    "evopress",
    "EvoPress: rates by evolutionary search, from those of least estimated KL divergence",
    auto.layouts,
    _fit,
    slow=True,
)
