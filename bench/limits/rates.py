"""Where rates of all pieces may come from: schedules, sensitivity, Fisher costs, and a search.

At equal bytes, all with the scores and thresholds of the auto plan: uniform; strategy 3, that is
logarithmic schedules up and down and ranks of the KL of each layer pruned alone, their end points
tuned on calibration text; the allocation of least Fisher cost; and EvoPress from uniform and from
Fisher. KL and the active fraction are of WikiText-2 test, all positions sparse but the first four
of a window. Rows already in the results file are kept, and an interrupted search goes on.

    python bench/limits/rates.py --model ./packed-in-layout-input --data ../shared/data
    python bench/limits/rates.py --model ./packed-in-layout-input --data ../shared/data --workers 2
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np
from shared.common import (
    add_spread,
    models_so_far,
    parser,
    save,
    say,
    spread_of,
    thread_count,
)
from shared.rows import WIKITEXT, bars
from threadpoolctl import threadpool_limits

from converters.allocate.evidence import measure
from converters.allocate.evolution import Effort, Stage
from converters.allocate.space import Start, uniform
from converters.allocate.starts import by_sensitivity, scheduled, shapes, tuned
from converters.calibration.checkpoint import checkpoint
from converters.calibration.observe import dense_model
from converters.calibration.windows import read_documents, token_windows
from converters.fan_out import fan_out
from converters.methods import auto, evopress
from converters.methods.auto_fit import fit
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import table
from sparity_edge.model.opening import open_packed
from sparity_edge.text.tokenizer import Tokenizer

CALIBRATION = Path("calib_c4") / "c4_pf_1480.jsonl"
LAYOUT = "input"


class Comparison:
    """One model, its text, and what judges rates of it.

    Args:
        options: of the command line.
        kept: checkpoint of the fit and of the searches.
        progress: bars.
    """

    def __init__(self, options: Any, kept: Any, progress: Any) -> None:
        self.options, self.kept, self.progress = options, kept, progress
        self.threads = thread_count(options.threads)
        self.packed = open_packed(Path(options.model))
        self.tokenizer = Tokenizer.from_folder(self.packed.path)
        documents = read_documents([options.data / CALIBRATION])
        windows = self._windows(documents, options.tokens, 1024)
        self.fitted = fit(
            self.packed, windows, LAYOUT,
            threads=self.threads, progress=progress, checkpoint=kept,
        )  # fmt: skip
        specs = auto.specs_of(self.packed)
        self.space = evopress.space_of(specs, self.fitted, LAYOUT)
        self.fisher = evopress.Fisher(specs, self.fitted, LAYOUT)
        self.places = evopress.places_of(windows)
        text = (options.data / WIKITEXT).read_text(encoding="utf-8")
        held_out = self._windows([text], options.window * 64, options.window)
        self.held_out = held_out[:: max(1, len(held_out) // options.windows)][: options.windows]

    def _windows(self, documents: Any, tokens: int, window: int) -> Any:
        ends = self.packed.config.eos_token_ids
        return token_windows(self.tokenizer, ends, documents, tokens, window)

    def starts(self, workers: Any, budget: float) -> dict[str, Any]:
        """Rates by gene of each start at one budget."""
        space, layers = self.space, len(self.fitted.costs)
        scores = evopress.Scores(space, workers.run, uniform, budget, len(self.places))
        level = space.level(budget)
        known = {**shapes(layers), "sensitivity": by_sensitivity(self._alone(workers, layers))}
        found = {}
        for name, shape in known.items():
            rates = partial(scheduled, shape, space.layers, space.sizes, level)

            def judged(tried: Sequence[Any]) -> list[float]:
                genomes = [space.genome(each, budget) for each in tried]
                return scores(genomes, range(min(self.options.tuned, len(self.places))))

            found[name] = rates(0.0) if name == "uniform" else tuned(rates, judged)
        found["fisher"] = self.fisher(space, budget)
        return found

    def _alone(self, workers: Any, layers: int) -> Any:
        """(rates, layers): KL of the model with one layer pruned."""
        pieces = auto.FORMS[LAYOUT]
        places = tuple(range(min(self.options.tuned, len(self.places))))
        tasks = [
            evopress.Task(
                [dict.fromkeys(pieces, rate) if each == layer else {} for each in range(layers)],
                places,
            )
            for rate in self.options.alone
            for layer in range(layers)
        ]
        found = workers.run(tasks, self.progress, "one layer alone")
        return np.array([each.kl for each in found]).reshape(len(self.options.alone), layers)

    def search(self, workers: Any, name: str, budget: float) -> tuple[Any, list[float]]:
        """Rates that EvoPress finds from a start, and what each generation gained."""
        start: Start = uniform if name == "uniform" else self.fisher
        options = self.options
        stages = (evopress.STAGES[0], Stage(1, options.places))
        effort = Effort(options.generations, options.offspring, stages)
        genome, gained = evopress.search(
            self.space, workers.run, start, budget, len(self.places), effort,
            self.progress, self.kept, seed=options.seed, name=self._label(name, budget),
        )  # fmt: skip
        return self.space.genes.rates(genome), gained

    def _label(self, name: str, budget: float) -> str:
        """Of a search, telling it from all others."""
        options = self.options
        effort = f"{options.generations}x{options.offspring}x{options.places}"
        return f"from {name} at {budget:g}, {effort}, seed {options.seed}"

    def row(self, rates: Any, budget: float) -> dict[str, Any]:
        """What rates come to on held-out text."""
        genome = self.space.genome(rates, budget)
        by_layer = self.space.by_layer(self.space.genes.rates(genome))
        plan = evopress.plan_of(by_layer, self.fitted, LAYOUT)
        with dense_model(self.packed, self.held_out.shape[1], self.threads, self.progress) as model:
            found = measure(model, [plan], self.held_out, progress=self.progress)[0]
        return {"budget": budget, "active": found.active, "kl": found.kl}


def compare(options: Any, report: dict[str, Any]) -> None:
    """Fill in the rows that are missing."""
    rows = report["rows"]
    depends = [str(options.model), options.tokens]
    with (
        threadpool_limits(1, "blas"),
        checkpoint("bench rates", *depends) as kept,
        bars() as progress,
    ):
        comparison = Comparison(options, kept, progress)
        opener = partial(
            evopress.open_candidates, comparison.packed.path, comparison.fitted, LAYOUT,
            comparison.places,
        )  # fmt: skip
        spread = spread_of(options)
        with fan_out(opener, spread, comparison.threads) as workers:
            for budget in options.budgets:
                if f"fisher:{budget:g}" not in rows:
                    for name, rates in comparison.starts(workers, budget).items():
                        rows[f"{name}:{budget:g}"] = comparison.row(rates, budget)
                        save(
                            options.out,
                            {"models": {**models_so_far(options.out), options.label: report}},
                        )
                for name in options.searched:
                    if (key := f"evopress-{name}:{budget:g}") in rows:
                        continue
                    begun = time.perf_counter()
                    rates, gained = comparison.search(workers, name, budget)
                    seconds = time.perf_counter() - begun
                    rows[key] = comparison.row(rates, budget)
                    rows[key] |= {"seconds": round(seconds), "gained": gained}
                    save(
                        options.out,
                        {"models": {**models_so_far(options.out), options.label: report}},
                    )


def show(report: dict[str, Any]) -> str:
    """All rows in one table."""
    lines = [
        [name, f"{row['active']:.3f}", f"{row['kl']:.4f}", str(row.get("seconds", ""))]
        for name, row in report["rows"].items()
    ]
    return table(["rates", "active", "KL", "seconds of search"], lines)


def main() -> int:
    options = _options()
    protocol = {
        "calibration": CALIBRATION.name,
        "tokens": options.tokens,
        "text": WIKITEXT.name,
        "window": options.window,
        "windows": options.windows,
        "generations": options.generations,
        "offspring": options.offspring,
        "place": evopress.PLACE,
        "places": options.places,
        "tuned": options.tuned,
        "alone": options.alone,
        "seed": options.seed,
    }
    report = models_so_far(options.out).get(options.label, {})
    if report.get("protocol") != protocol:
        report = {"protocol": protocol, "machine": machine(thread_count(options.threads))}
    report.setdefault("rows", {})
    compare(options, report)
    say(show(report))
    return 0


def _options() -> Any:
    result = parser(__doc__, "rates")
    result.add_argument("--model", required=True, help="packed in layout input")
    result.add_argument("--label", help="in the results file; default: the folder's name")
    result.add_argument("--data", type=Path, required=True, help="folder of texts")
    result.add_argument("--tokens", type=int, default=16384, help="of calibration text")
    result.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.7], help="sparsities")
    result.add_argument(
        "--searched", nargs="*", choices=("fisher", "uniform"), default=["fisher", "uniform"],
        help="starts of a search; default: both",
    )  # fmt: skip
    result.add_argument("--generations", type=int, default=60, help="default: %(default)s")
    result.add_argument("--offspring", type=int, default=16, help="default: %(default)s")
    result.add_argument("--places", type=int, default=6, help="of text that the best are judged on")
    result.add_argument(
        "--tuned", type=int, default=4, help="places that schedules and sensitivity are judged on"
    )
    result.add_argument(
        "--alone", type=float, nargs="+", default=[0.3, 0.5, 0.7], metavar="RATE",
        help="rates at which each layer is pruned alone",
    )  # fmt: skip
    result.add_argument("--window", type=int, default=512, help="default: %(default)s")
    result.add_argument("--windows", type=int, default=8, help="default: %(default)s")
    result.add_argument("--seed", type=int, default=0, help="of the search")
    add_spread(result)
    options = result.parse_args()
    options.label = options.label or Path(options.model).name
    if options.quick:
        options.generations, options.windows = min(options.generations, 6), 4
    return options


if __name__ == "__main__":
    raise SystemExit(main())
