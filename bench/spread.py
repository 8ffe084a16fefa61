"""Dynamic thresholds: does a kind of text change how much is skipped, and what that costs?

The same plans read an encyclopedia, chat prompts, code and stories, every position of a window but
the first four sparse. A static threshold skips more of one kind than of another; the same share of
every token, or a predicted threshold, is meant to differ less. The spread is the largest density of
neurons less the smallest, in points. The plans come from calibration:

    sparity-edge calibrate MODEL --methods ablation
    python bench/spread.py MODEL --data ../shared/data
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.common import parser, save, thread_count
from shared.rows import WIKITEXT, bars

from sparity_edge import Generator
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import table
from sparity_edge.model.opening import open_folder
from sparity_edge.plans.plan_file import read_plan
from sparity_edge.plans.setting import Setting
from sparity_edge.quality.divergence import divergences

PLANS = ("chess-ffn", "chess-top", "chess-scaled")


def main() -> int:
    options = _options()
    texts = {kind: read(options.data) for kind, read in KINDS.items()}
    threads = thread_count(options.threads)
    report: dict[str, Any] = {
        "machine": machine(threads),
        "protocol": {key: getattr(options, key) for key in ("level", "window", "windows")},
        "plans": {},
    }
    with Generator.load(options.model, threads=threads, sparse_prefill=True) as generator:
        report["model"] = Path(str(generator.info()["source"])).stem
        for kind, text in texts.items():
            measure(generator, kind, text, options, report["plans"])
    for rows in report["plans"].values():
        rows["spread"] = _range([rows[kind]["density"] for kind in KINDS])
        rows["perplexity_spread"] = _range([rows[kind]["perplexity_ratio"] for kind in KINDS])
    save(options.out, report)
    print(f"\n{show(report['plans'])}\n")
    return 0


def measure(
    generator: Generator, kind: str, text: str, options: argparse.Namespace, plans: dict[str, Any]
) -> None:
    """Density, perplexity and KL of every plan on one text, into plans[name][kind]."""
    settings = [Setting(name, level=options.level) for name in options.plans]
    with bars() as progress:
        results = divergences(
            generator,
            text,
            settings,
            window=options.window,
            windows=options.windows,
            progress=progress,
        )
    for name, result in zip(options.plans, results):
        figures = result.to_dict()
        active = figures["active_weight_fraction"]
        assert active is not None
        plans.setdefault(name, {})[kind] = {
            "density": _density(generator, name, active),
            **{key: figures[key] for key in ("perplexity_ratio", "kl_mean", "kl_stderr")},
        }


def show(plans: Mapping[str, Any]) -> str:
    """A table: densities in percent with the KL of each text, and the spreads."""
    lines = []
    for name, rows in plans.items():
        cells = [f"{rows[kind]['density']:.1%} ({rows[kind]['kl_mean']:.3f})" for kind in KINDS]
        spreads = [f"{100 * rows['spread']:.1f}", f"{rows['perplexity_spread']:.3f}"]
        lines.append([name, *cells, *spreads])
    kinds = [f"{kind}: density (KL)" for kind in KINDS]
    return table(["plan", *kinds, "spread, points", "spread of perplexity ratio"], lines)


def _density(generator: Generator, name: str, active: float) -> float:
    """Of neurons, from the active weight fraction: bytes fall evenly from dense to the last level.

    Holds for plans with no rule but that of neurons.
    """
    family = read_plan(open_folder(generator.path), name)
    skippable = (1 - float(family.active[-1])) / float(family.levels[-1])
    return 1 - (1 - active) / skippable


def _range(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _lines(path: Path, text: Callable[[Any], str]) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n\n".join(text(json.loads(line)) for line in lines)


KINDS: dict[str, Callable[[Path], str]] = {
    "wikitext": lambda data: (data / WIKITEXT).read_text(encoding="utf-8"),
    "chat": lambda data: _lines(
        data / "mt_bench" / "question.jsonl", lambda row: "\n\n".join(row["turns"])
    ),
    "code": lambda data: _lines(
        data / "humaneval" / "HumanEval.jsonl",
        lambda row: row["prompt"] + row["canonical_solution"],
    ),
    "stories": lambda data: (data / "calib_gutenberg" / "moby_dick.txt").read_text(
        encoding="utf-8"
    ),
}


def _options() -> argparse.Namespace:
    result = parser(__doc__, "spread")
    result.add_argument("model", help="a packed folder that carries the plans")
    result.add_argument("--data", type=Path, required=True, help="folder of texts")
    result.add_argument("--plans", nargs="+", default=list(PLANS), help="default: %(default)s")
    result.add_argument("--level", type=float, default=0.5, help="default: %(default)s")
    result.add_argument("--window", type=int, default=1024, help="default: %(default)s")
    result.add_argument("--windows", type=int, default=8, help="of each text; default: 8")
    options = result.parse_args()
    if options.quick:
        options.windows = min(options.windows, 2)
    return options


if __name__ == "__main__":
    raise SystemExit(main())
