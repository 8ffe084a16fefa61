"""Quality of sparse models: perplexity, distance to dense, accuracy, at the measured fraction.

Every position but the first four of a window or question is sparse. Text: WikiText-2 test in the
protocol of quality_dense.py. Tasks: hellaswag (by length), piqa, arc_easy, and where asked for
gsm8k (exact match) and humaneval (nats a token of the reference). Rows already in the results file
are kept, so a run may be broken off and taken up again.

    python bench/quality.py --data ../shared/data
    python bench/quality.py --data ../shared/data --model ./my-model dense auto:0.25 chess@0.5
    python bench/quality.py --data ../shared/data --model ./neurons --packs ./input --label "1.5B"
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from shared.common import add_models, add_settings, add_windows, parser, save, thread_count
from shared.models import DEFAULT_MODEL
from shared.rows import WIKITEXT, bars, by_plan, kept, packs, settings_of
from tasks.every import DEFAULT, TASKS, questions
from tasks.results import cell

from sparity_edge import Generator
from sparity_edge.measure.rounds import table
from sparity_edge.model.opening import open_folder
from sparity_edge.plans.plan_file import read_plan
from sparity_edge.plans.setting import DENSE, Setting
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
            with Generator.load(
                folder if found else model,
                dtype=None if found else options.dtype,
                threads=threads,
                sparse_prefill=True,
            ) as generator:
                part.setdefault("origins", {}).update(origins(folder, settings))
                keep = partial(save, options.out, report)
                measure(generator, [DENSE, *settings], text, options, part["rows"], keep)
        print(f"\n{name}\n\n{show(part['rows'], options.tasks)}\n")
    return 0


def origins(folder: Path, settings: Sequence[Setting]) -> dict[str, Any]:
    """What text each plan comes from, and how many tokens of it, by plan."""
    plans = {str(setting.plan) for setting in settings if not setting.dense}
    notes = {plan: read_plan(open_folder(folder), plan).notes for plan in plans}
    return {plan: {key: each.get(key) for key in ORIGIN} for plan, each in sorted(notes.items())}


def measure(
    generator: Generator,
    settings: Sequence[Setting],
    text: str,
    options: argparse.Namespace,
    rows: dict[str, Any],
    keep: Callable[[], None],
) -> None:
    """Fill in what is missing in `rows`, calling `keep` after each piece."""
    missing = [setting for setting in settings if "kl_mean" not in rows.get(str(setting), {})]
    for group in by_plan(missing):
        with bars() as progress:
            results = divergences(
                generator,
                text,
                group,
                window=options.window,
                windows=options.windows,
                stride=options.stride,
                progress=progress,
            )
        for setting, result in zip(group, results):
            rows.setdefault(str(setting), {}).update(result.to_dict())
        keep()
    for task in options.tasks:
        asked = questions(task, options.data, options.limit)
        for setting in settings:
            if task not in rows[str(setting)]:
                generator.apply(setting)
                with bars() as progress:
                    rows[str(setting)][task] = TASKS[task].answer(generator, asked, progress)
                keep()


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
    options = result.parse_args()
    if options.quick:
        options.limit, options.windows = min(options.limit, 50), min(options.windows, 2)
    return options


if __name__ == "__main__":
    raise SystemExit(main())
