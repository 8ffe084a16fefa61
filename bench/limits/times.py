"""Time of a token with every plan against the dense pack, one model, interleaved within a run.

What quality.py measured of a setting and what this measures of it stand under the same label and
the same name of the setting, so that tables and figures can join them. Each setting decodes the
model's greedy continuation of a chat prompt; in every round dense decoding takes its turn as well,
and the ratio is that of the round. Rows in the results file are kept, so a run may be broken off
and taken up again, and --seconds ends it by itself; --again measures anew what is named.

    python bench/limits/times.py --dense ./dense --packs ./neurons ./input --label SmolLM2-int4
    python bench/limits/times.py --dense ./dense --packs ./input --label 1.5B teal@0.4 auto:0.25
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared.common import (
    PAUSE,
    RESULTS,
    add_settings,
    models_so_far,
    parser,
    save,
    say,
    thread_count,
)
from shared.names import DENSE
from shared.side import Side

from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import alternate, ratios, summary, table, with_spread
from sparity_edge.plans.plan_file import plan_names
from sparity_edge.plans.setting import Setting

TOGETHER = 6  # settings that share a dense sample in each round


def measure(options: argparse.Namespace, rows: dict[str, Any], keep: Callable[[], None]) -> bool:
    """Fill in what is missing in `rows`, calling `keep` after each group of settings.

    Returns:
        Whether all has been measured.
    """
    start, threads = time.perf_counter(), thread_count(options.threads)
    missing = _missing(options, rows)
    if not missing:
        return True
    dense = Side(options.dense, [DENSE], threads)
    ids = dense.continuation(options.tokens)
    try:
        for folder, settings in missing.items():
            side = Side(folder, settings, threads)
            try:
                for first in range(0, len(settings), TOGETHER):
                    group = settings[first : first + TOGETHER]
                    if options.seconds and time.perf_counter() - start > options.seconds:
                        return False
                    rows |= timed_rows(dense, side, group, ids, options.rounds)
                    keep()
            finally:
                side.generator.close()
    finally:
        dense.generator.close()
    return True


def timed_rows(
    dense: Side, side: Side, settings: list[str], ids: list[int], rounds: int
) -> dict[str, Any]:
    """By setting: seconds of a token, the ratio to dense, and the active weight fraction."""
    cases = {DENSE: dense.case(DENSE, ids)} | {text: side.case(text, ids) for text in settings}
    samples = alternate(cases, rounds, pause=PAUSE, say=lambda text: say(text))
    return {
        text: {
            "seconds_a_token": summary(samples[text]),
            "dense_seconds_a_token": summary(samples[DENSE]),
            "against_dense": summary(ratios(samples[DENSE], samples[text])),
            "active_weight_fraction": side.active[text],
            "rounds": rounds,
        }
        for text in settings
    }


def _missing(options: argparse.Namespace, rows: Mapping[str, Any]) -> dict[Path, list[str]]:
    """By folder: the settings that are to be measured in it; the first that carries a plan has it.

    Raises:
        SystemExit: a setting was asked for whose plan no folder carries.
    """
    asked = options.settings or _of_quality(options.quality, options.label)
    wanted = [str(Setting.parse(text)) for text in asked]
    result: dict[Path, list[str]] = {}
    for text in dict.fromkeys(wanted):
        plan = Setting.parse(text).plan
        folder = next((pack for pack in options.packs if plan in plan_names(pack)), None)
        if folder is None and options.settings:
            raise SystemExit(f"None of --packs carries the plan of {text}.")
        if folder is not None and (options.again or text not in rows):
            result.setdefault(folder, []).append(text)
    return result


def _of_quality(path: Path, label: str) -> Iterable[str]:
    """The settings whose loss is known, dense excepted."""
    models = json.loads(path.read_text(encoding="utf-8"))["models"]
    if label not in models:
        raise SystemExit(f"{path} has nothing of {label}; it has {', '.join(models)}.")
    return [text for text in models[label]["rows"] if not Setting.parse(text).dense]


def show(rows: Mapping[str, Any]) -> str:
    """A line for each setting, the fastest first."""
    lines = [
        [
            text,
            f"{1e3 * row['seconds_a_token']['median']:.2f}",
            with_spread(row["against_dense"]),
            f"{row['active_weight_fraction']:.3f}",
        ]
        for text, row in sorted(
            rows.items(), key=lambda each: -float(each[1]["against_dense"]["median"])
        )
    ]
    return table(["setting", "ms a token", "times as fast as dense", "active"], lines)


def main() -> int:
    result = parser(__doc__, "times")
    add_settings(result, "all that quality.json has under the label and --packs carry")
    result.add_argument("--dense", type=Path, required=True, help="the model, packed dense")
    result.add_argument("--label", required=True, help="of the rows, as in quality.json")
    result.add_argument("--tokens", type=int, default=32, help="of a sample; default: %(default)s")
    result.add_argument("--seconds", type=float, help="begin nothing new after so many")
    result.add_argument("--again", action="store_true", help="measure what is there as well")
    result.add_argument("--quality", type=Path, default=RESULTS / "quality.json",
                        help="where the settings are; default: bench/results")  # fmt: skip
    options = result.parse_args()
    options.rounds = 3 if options.quick else options.rounds
    known = models_so_far(options.out)
    part = known.setdefault(options.label, {"rows": {}})
    part |= {"machine": machine(thread_count(options.threads)), "tokens": options.tokens}
    done = measure(options, part["rows"], lambda: save(options.out, {"models": known}))
    print(show(part["rows"]))
    say("all measured" if done else "not all measured: the same command goes on")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
