"""Quality of sparse models: perplexity, distance to dense, accuracy, at the measured fraction.

Every position but the first four of a window or question is sparse. Text: WikiText-2 test in the
protocol of quality_dense.py. Tasks: hellaswag (by length), piqa, arc_easy, and where asked for
gsm8k (exact match) and humaneval (nats a token of the reference). Rows already in the results file
are kept, so a run may be broken off and taken up again.

    python bench/quality.py --data ../shared/data
    python bench/quality.py --data ../shared/data --model ./my-model dense auto:0.25 chess@0.5
    python bench/quality.py --data ../shared/data --model ./neurons --packs ./input --label "1.5B"
    python bench/quality.py --data ../shared/data --workers 2
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shared.common import (
    add_models,
    add_settings,
    add_spread,
    add_windows,
    parser,
    save,
    spread_of,
    thread_count,
)
from shared.models import DEFAULT_MODEL
from shared.rows import WIKITEXT, bars, by_plan, kept, packs, settings_of
from tasks.every import DEFAULT, TASKS, questions
from tasks.results import cell

from converters.fan_out import fan_out
from converters.fan_out.workers import Workers
from sparity_edge import Generator
from sparity_edge.measure.rounds import table
from sparity_edge.model.opening import open_folder
from sparity_edge.plans.plan_file import read_plan
from sparity_edge.plans.setting import DENSE, Setting
from sparity_edge.progress import silent
from sparity_edge.quality.divergence import divergences

SPARSITIES = (0.25, 0.35, 0.5)
ORIGIN = ("text", "tokens", "tokens_sha256")  # of a plan's notes


def main() -> int:
    options = _options()
    text = (options.data / WIKITEXT).read_text(encoding="utf-8")
    threads = thread_count(options.threads)
    protocol = {
        "text": WIKITEXT.name,
        "window": options.window,
        "windows": options.windows,
        "stride": options.stride,
        "limit": options.limit,
    }
    for model in options.model or [DEFAULT_MODEL]:
        name = options.label or " ".join(filter(None, (Path(model).stem, options.dtype)))
        report, part = kept(options.out, name, protocol, threads)
        folders = packs(model, options.dtype, options.packs)
        found = settings_of(folders, options.settings, SPARSITIES)
        # The first folder measures dense as well; without any plan the model itself does.
        for folder, settings in (found or {Path(model): []}).items():
            part.setdefault("origins", {}).update(origins(folder, settings))
            spread = spread_of(options)
            cut = {key: protocol[key] for key in ("window", "windows", "stride")}
            opener = partial(
                opened, folder if found else model, None if found else options.dtype, text,
                cut, spread.here,
            )  # fmt: skip
            with fan_out(opener, spread, threads) as workers:
                keep = partial(save, options.out, report)
                measure(workers, [DENSE, *settings], options, part["rows"], keep)
        print(f"\n{name}\n\n{show(part['rows'], options.tasks)}\n")
    return 0


def origins(folder: Path, settings: Sequence[Setting]) -> dict[str, Any]:
    """What text each plan comes from, and how many tokens of it, by plan."""
    plans = {str(setting.plan) for setting in settings if not setting.dense}
    notes = {plan: read_plan(open_folder(folder), plan).notes for plan in plans}
    return {plan: {key: each.get(key) for key in ORIGIN} for plan, each in sorted(notes.items())}


@dataclass(frozen=True)
class Piece:
    """What is measured at once: the distance of a plan's positions from dense, or a task."""

    settings: tuple[Setting, ...]
    task: str | None = None
    asked: tuple[Any, ...] = ()  # of the task


@contextmanager
def opened(
    model: str | Path,
    dtype: str | None,
    text: str,
    protocol: Mapping[str, int],
    shown: bool,
    threads: int,
) -> Iterator[Callable[[Piece], list[dict[str, Any]]]]:
    """A worker: a model of its own, which measures pieces and gives a row's part by setting."""

    def work(piece: Piece) -> list[dict[str, Any]]:
        with bars() if shown else nullcontext(silent) as progress:
            if piece.task is None:
                found = divergences(generator, text, piece.settings, progress=progress, **protocol)
                return [each.to_dict() for each in found]
            generator.apply(piece.settings[0])
            return [{piece.task: TASKS[piece.task].answer(generator, piece.asked, progress)}]

    with Generator.load(model, dtype=dtype, threads=threads, sparse_prefill=True) as generator:
        yield work


def measure(
    workers: Workers,
    settings: Sequence[Setting],
    options: argparse.Namespace,
    rows: dict[str, Any],
    keep: Callable[[], None],
) -> None:
    """Fill in what is missing in `rows`, calling `keep` after each piece."""
    missing = [setting for setting in settings if "kl_mean" not in rows.get(str(setting), {})]
    pieces = [Piece(tuple(group)) for group in by_plan(missing)]
    for task in options.tasks:
        asked = tuple(questions(task, options.data, options.limit))
        pieces += [
            Piece((setting,), task, asked)
            for setting in settings
            if task not in rows.get(str(setting), {})
        ]

    def found(index: int, results: list[dict[str, Any]]) -> None:
        for setting, result in zip(pieces[index].settings, results, strict=True):
            rows.setdefault(str(setting), {}).update(result)
        keep()

    workers.run(pieces, found=found)


def show(rows: dict[str, Any], tasks: Sequence[str]) -> str:
    """A table; accuracies with their difference from dense on the same questions."""
    dense = rows[str(DENSE)]
    lines = []
    for name, row in rows.items():
        line = [
            name,
            f"{row['active_weight_fraction']:.3f}",
            _with_error(row["perplexity"], row["stderr"], 2),
            _with_error(row["perplexity_ratio"], row["perplexity_ratio_stderr"], 3),
            _with_error(row["kl_mean"], row["kl_stderr"], 4),
            f"{row['kl_p99']:.3f}",
            f"{row['top1_agreement']:.1%}",
        ]
        lines.append(line + [cell(row.get(task), dense.get(task)) for task in tasks])
    head = ["setting", "active", "perplexity", "ratio", "KL", "KL p99", "top-1", *tasks]
    return table(head, lines)


def _with_error(value: float, error: float | None, digits: int) -> str:
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _options() -> argparse.Namespace:
    result = parser(__doc__, "quality")
    add_settings(result, "every plan at sparsity 0.25, 0.35, 0.5")
    result.add_argument("--data", type=Path, required=True, help="folder of texts and tasks")
    add_models(result)
    result.add_argument("--label", help="of the rows; default: the model's name")
    result.add_argument("--dtype", help="number format; default: the file's own")
    result.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(DEFAULT))
    result.add_argument("--limit", type=int, default=500, help="questions a task; default 500")
    add_windows(result)
    add_spread(result)
    options = result.parse_args()
    if options.quick:
        options.limit, options.windows = min(options.limit, 50), min(options.windows, 2)
    return options


if __name__ == "__main__":
    raise SystemExit(main())
