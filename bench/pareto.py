"""Quality against bytes and against speed, for every plan of a model and in each number format.

A row is a plan at one position of the dial: KL and perplexity of a text whose positions are all
sparse (but the first four of a window), and the speed of decoding one token after another. Speeds
are ratios to dense decoding in the same round, by the model's own pack, whatever layout a plan
needs. KL is measured from the dense model in the first number format, and so holds what the format
costs as well. Rows already in the results file are kept.

    python bench/pareto.py --data ../shared/data --dtypes f32 int8 int4
    python bench/pareto.py --data ../shared/data --dtypes int8 --packs ./int8-mixed chess@0.5
    python bench/pareto.py --data ../shared/data --workers 2
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pages.pareto_table import rows_table
from shared.common import (
    RESULTS,
    add_models,
    add_settings,
    add_spread,
    add_windows,
    parser,
    save,
    say,
    spread_of,
    thread_count,
)
from shared.models import DEFAULT_MODEL
from shared.rows import SPARSITIES, WIKITEXT, bars, by_plan, kept, packs, settings_of

from converters.fan_out import Spread, fan_out
from sparity_edge import Generator, SamplingParams
from sparity_edge.measure.rounds import alternate, counted, ratios, summary
from sparity_edge.plans.setting import DENSE, Setting
from sparity_edge.quality.divergence import divergences

QUICK_SPARSITIES = (0.25, 0.4, 0.5)
PROMPT = 64  # tokens in front of those that are timed
SETTLE = 2  # tokens at the start of an answer that are not timed: the program is prepared there


def main() -> int:
    options = _options()
    threads = thread_count(options.threads)
    text = (options.data / WIKITEXT).read_text(encoding="utf-8")
    loads = [(model, dtype) for model in options.model for dtype in options.dtypes or [None]]
    load = partial(Generator.load, threads=threads, sparse_prefill=True, notify=say)
    protocol = {
        "text": WIKITEXT.name,
        "window": options.window,
        "windows": options.windows,
        "stride": options.stride,
        "reference": _name(*loads[0]),
    }
    with load(loads[0][0], dtype=loads[0][1]) as reference:
        for model, dtype in loads:
            report, part = kept(options.out, _name(model, dtype), protocol, threads)
            keep = partial(save, options.out, report)
            with ExitStack() as stack:
                dense = reference
                if (model, dtype) != loads[0]:
                    dense = stack.enter_context(load(model, dtype=dtype))
                part["dtypes"] = dense.info()["dtypes"]
                spread = spread_of(options)
                run = Run(dense, reference, text, options, part["rows"], keep, spread)
                run.add(dense, [DENSE])
                more = [each for each in options.packs if _formats(each) == part["dtypes"]]
                folders = packs(model, dtype, more)
                shares = QUICK_SPARSITIES if options.quick else SPARSITIES
                for folder, settings in settings_of(folders, options.settings, shares).items():
                    if folder.resolve() == dense.path.resolve():
                        run.add(dense, settings)
                        continue
                    with load(folder) as generator:
                        run.add(generator, settings)
    finish(options.out)
    return 0


def cut_of(options: argparse.Namespace) -> dict[str, int]:
    """How the text is cut into windows."""
    return {name: getattr(options, name) for name in ("window", "windows", "stride")}


@contextmanager
def opened(
    model: Path, reference: Path, text: str, cut: Mapping[str, int], threads: int
) -> Iterator[Callable[[Sequence[Setting]], list[dict[str, Any]]]]:
    """A worker: models of its own, which measures the quality of settings."""
    load = partial(Generator.load, threads=threads, sparse_prefill=True)
    with load(reference) as dense, load(model) as generator:

        def work(settings: Sequence[Setting]) -> list[dict[str, Any]]:
            found = divergences(generator, text, settings, reference=dense, **cut)
            return [each.to_dict() for each in found]

        yield work


@dataclass(frozen=True)
class Run:
    """What the rows of one model in one number format are measured with."""

    dense: Generator  # takes part in every round of speed
    reference: Generator  # KL is measured from its predictions
    text: str
    options: argparse.Namespace
    rows: dict[str, Any]  # by setting, to be filled
    keep: Callable[[], None]  # saves them
    spread: Spread  # where quality is measured; speed is measured here, one after another

    def add(self, generator: Generator, settings: Sequence[Setting]) -> None:
        """Measure what no row holds yet, plan by plan."""
        missing = by_plan([each for each in settings if not self._has(each, "kl_mean")])
        if self.spread.here:
            for group in missing:
                self._add_quality(generator, group)
        elif missing:
            self._spread_quality(generator, missing)
        for group in by_plan(settings):
            self._add_speed(generator, [each for each in group if not self._has(each, "ratio")])

    def _has(self, setting: Setting, figure: str) -> bool:
        return figure in self.rows.get(str(setting), {})

    def _add_quality(self, generator: Generator, settings: Sequence[Setting]) -> None:
        generator.sparse_prefill = True
        with bars() as progress:
            cut = cut_of(self.options)
            results = divergences(
                generator, self.text, settings, reference=self.reference, progress=progress, **cut
            )
        self._note(settings, [each.to_dict() for each in results])

    def _spread_quality(self, generator: Generator, groups: Sequence[Sequence[Setting]]) -> None:
        """Measure groups of settings by workers with models of their own."""
        opener = partial(
            opened, generator.path, self.reference.path, self.text, cut_of(self.options)
        )
        threads = thread_count(self.options.threads)
        with bars() as progress, fan_out(opener, self.spread, threads) as workers:
            workers.run(
                groups, progress, "plans", lambda index, found: self._note(groups[index], found)
            )

    def _note(self, settings: Sequence[Setting], results: Sequence[dict[str, Any]]) -> None:
        for setting, result in zip(settings, results, strict=True):
            row = self.rows.setdefault(str(setting), {})
            row |= {"plan": setting.plan, "sparsity": setting.sparsity, "level": setting.level}
            row |= result
        self.keep()

    def _add_speed(self, generator: Generator, settings: Sequence[Setting]) -> None:
        if not settings:
            return
        options, fractions = self.options, dict[str, float]()
        prompt = generator.tokenizer.encode(self.text, add_special_tokens=False)[:PROMPT]
        generator.sparse_prefill = self.dense.sparse_prefill = False  # as in a chat
        cases = {str(DENSE): _case(self.dense, DENSE, prompt, options.tokens, fractions)}
        for each in settings:
            if not each.dense:
                cases[str(each)] = _case(generator, each, prompt, options.tokens, fractions)
        with bars() as progress:
            calls = len(cases) * (options.rounds + 1)
            told = counted(cases, calls, "decoding", progress)
            samples = alternate(told, options.rounds)
        for name in map(str, settings):
            row = self.rows[name]
            row["tokens_s"] = summary(samples[name])
            row["ratio"] = summary(ratios(samples[name], samples[str(DENSE)]))
            row["decoding"] = {"tokens": options.tokens, "active_fraction": fractions[name]}
        generator.apply(DENSE)
        self.keep()


def _case(
    generator: Generator,
    setting: Setting,
    prompt: Sequence[int],
    tokens: int,
    fractions: dict[str, float],
) -> Callable[[], float]:
    """Tokens a second of one answer, and what share of the weights it read."""
    params = SamplingParams(temperature=0, max_tokens=tokens + SETTLE, ignore_eos=True)

    def run() -> float:
        generator.apply(setting)
        generator.speculation = False
        steps = [step.stats for step in generator.stream(prompt, params)]
        fractions[str(setting)] = steps[-1].active_weight_fraction
        seconds = steps[-1].decode_seconds - steps[SETTLE - 1].decode_seconds
        return (len(steps) - SETTLE) / seconds

    return run


def finish(path: Path) -> None:
    """Print the table of a results file and draw its figure beside it."""
    report = json.loads(path.read_text(encoding="utf-8"))
    print(f"\n{rows_table(report['models'])}\n")
    try:
        from pages.pareto_figure import draw
    except ImportError:
        say("No figure: matplotlib is not installed (pip install 'sparity-edge[bench]').")
        return
    say(f"written: {draw(report['models'], path.with_suffix('.png'))}")


def _formats(folder: Path) -> list[str]:
    with Generator.load(folder) as generator:
        return list(generator.info()["dtypes"])


def _name(model: str, dtype: str | None) -> str:
    return " ".join(filter(None, (Path(model).stem, dtype)))


def _options() -> argparse.Namespace:
    result = parser(__doc__, "pareto")
    add_settings(result, "every plan at ten sparsities")
    result.add_argument("--data", type=Path, required=True, help="folder of texts")
    add_models(result)
    result.add_argument("--dtypes", nargs="*", metavar="DTYPE", help="default: the file's own")
    add_windows(result)
    add_spread(result)
    result.add_argument("--tokens", type=int, default=96, help="timed a round; default 96")
    result.set_defaults(out=None)
    options = result.parse_args()
    options.model = options.model or [DEFAULT_MODEL]
    if options.out is None:
        options.out = RESULTS / f"pareto-{Path(options.model[0]).stem}.json"
    if options.quick:
        options.windows, options.rounds = min(options.windows, 2), min(options.rounds, 3)
        options.tokens = min(options.tokens, 64)
    return options


if __name__ == "__main__":
    raise SystemExit(main())
