"""EvoPress (arXiv 2410.14649) for activations: rates of every piece of every layer by search.

The scores are those of the auto plan, so a candidate is a table of thresholds and no weight is
touched. Fitness is the KL divergence to the dense model on calibration text, the search itself in
allocate/evolution.py. A budget is bytes; as thresholds that are learnt of the dense model skip less
or more once everything is sparse, the logarithm of KL is compared at equal bytes read, along the
line that the start has. The search runs at a few budgets; what it changes of its start is
interpolated between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from converters.allocate.evolution import Effort, Genome, Stage, evolve
from converters.allocate.judge import Judge, Judged
from converters.allocate.lagrange import Allocator, Curve
from converters.allocate.price import Spec, by_bytes
from converters.allocate.space import STEP, Rates, Space, Start, table
from converters.calibration.checkpoint import NOWHERE, Checkpoint
from converters.calibration.fisher import RATES
from converters.calibration.histograms import Array
from converters.calibration.observe import dense_model
from converters.calibration.windows import Windows
from converters.fan_out import fan_out
from converters.methods import auto
from converters.methods.auto_fit import Fitted, fit, layer_parameters
from converters.methods.family import ModelMethod, ModelView
from sparity_edge.choices import MAX_LEVEL
from sparity_edge.model.opening import open_packed
from sparity_edge.packed.folder import PackedModel
from sparity_edge.plans.plan import PlanFamily, SparsityPlan
from sparity_edge.plans.plan_file import fingerprint
from sparity_edge.progress import Progress, silent

BUDGETS = (0.3, 0.5, 0.7)  # sparsities that are searched
PLACE = 256  # tokens that a candidate reads from a cold start: what a model reads at once
PLACES = 64  # of the calibration text, evenly spread
STAGES = (Stage(4, 1), Stage(1, 6))
OFFSPRING = 16
# Tokens x parameters of the layers that all generations of one budget read: SmolLM2 takes a quarter
# of an hour for them on two cores of a Zen 5 (0.27 s a place).
WORK = 90 << 40
LEAST_GENERATIONS, MOST_GENERATIONS = 4, 400
LINE_PLACES = 8  # that a start's line is measured on


@dataclass(frozen=True)
class Task:
    """A candidate to be judged."""

    rates: Rates
    places: tuple[int, ...]


Run = Callable[[Sequence[Task]], Sequence[Judged]]  # judges candidates, in their order


def space_of(specs: Mapping[str, Spec], fitted: Fitted, layout: str) -> Space:
    """What can be left unread of a model."""
    return Space(specs, len(fitted.costs), auto.FORMS[layout], fitted.means)


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


@contextmanager
def open_candidates(
    packed: PackedModel | Path, fitted: Fitted, layout: str, places: Windows, threads: int
) -> Iterator[Candidates]:
    """A worker that judges candidates.

    Args:
        packed: the model, or the folder that a worker in another process opens.
        fitted: scores and thresholds.
        layout: "input" or "mixed".
        places: of the text.
        threads: how many compute.
    """
    model = packed if isinstance(packed, PackedModel) else open_packed(packed)
    with dense_model(model, places.shape[1], threads, silent) as running:
        yield Candidates(Judge(running, places), fitted, layout)


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


def search(
    space: Space,
    run: Run,
    start: Start,
    budget: float,
    places: int,
    effort: Effort,
    progress: Progress = silent,
    checkpoint: Checkpoint = NOWHERE,
    *,
    seed: int = 0,
    name: str = "",
) -> tuple[Genome, list[float]]:
    """The genome that is found at one budget, and what each generation gained: logarithms of KL.

    Args:
        space: of the model.
        run: judges candidates.
        start: where the search begins.
        budget: sparsity.
        places: of the text.
        effort: how much is searched.
        progress: told of generations.
        checkpoint: keeps the parent behind every generation.
        seed: of the search.
        name: of the search; empty: after its budget.
    """
    genome, scores = evolve(
        space.genes, space.genome(start(space, budget), budget),
        Scores(space, run, start, budget, places), effort, places, seed=seed,
        name=name or f"search {round(100 * budget)} percent",
        progress=progress, checkpoint=checkpoint,
    )  # fmt: skip
    return genome, [round(float(old - new), 4) for old, new in scores]


def _fit(view: ModelView) -> PlanFamily:
    text = view.windows[: -auto.HELD_BACK]
    fitted = fit(
        view.packed, text, view.layout,
        threads=view.threads, progress=view.progress, checkpoint=view.checkpoint,
    )  # fmt: skip
    specs = auto.specs_of(view.packed)
    space, start = space_of(specs, fitted, view.layout), Fisher(specs, fitted, view.layout)
    places, found = places_of(text), dict[float, Genome]()
    held_out = auto.held_back(view.packed, view.windows)
    packed = view.packed if view.spread.here else view.packed.path
    opener = partial(open_candidates, packed, fitted, view.layout, places)
    history: dict[str, Any] = {}
    with fan_out(opener, view.spread, view.threads) as workers:
        for budget in BUDGETS:
            found[budget], history[str(budget)] = search(
                space, workers.run, start, budget, len(places),
                effort(layer_parameters(view.packed)), view.progress, view.checkpoint,
            )  # fmt: skip
    levels, rows = table(space, start, found)
    notes = {**view.notes, "gained": history}  # logarithm of KL, by generation
    expected = auto.of_rates(
        EVOPRESS, fitted, view.layout, levels, rows, fingerprint(view.packed), notes
    )
    with dense_model(view.packed, held_out.shape[1], view.threads, view.progress) as model:
        return auto.measured(model, expected, held_out, view.progress, view.checkpoint)


EVOPRESS = ModelMethod(
    "evopress",
    "EvoPress: rates by evolutionary search, from those of least estimated KL divergence",
    auto.layouts,
    _fit,
    slow=True,
)
