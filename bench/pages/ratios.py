"""The ratios of a report, and how far two reports differ in them.

Times differ from machine to machine and from minute to minute; what a report claims are ratios of
cases that took turns, and those should come out again.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from pages.fronts import duels, made_anew, timed_rows
from pages.tables import Results
from shared.names import PARTS, TOKEN

from sparity_edge.measure.rounds import ratios, table


def all_ratios(results: Results) -> dict[str, float]:
    """Every ratio by what it compares."""
    found = {}
    for kind in (_ladder, _peers, _parts, _roofline):
        name = kind.__name__.strip("_")
        if name in results:
            found |= dict(kind(results[name]))
    return found


def _ladder(report: Any) -> Iterator[tuple[str, float]]:
    """Speed of each row against the first, and of ours against what it beats."""
    for model, part in report["models"].items():
        rows = timed_rows(part)
        base = next(iter(rows))
        for name, row in rows.items():
            if name != base:
                faster = statistics.median(ratios(rows[base]["seconds"], row["seconds"]))
                yield f"{model}: {name} / {base}", faster
        for title, some in (("", rows), (", made anew", made_anew(rows))):
            for peer, duel in duels(some).items():
                if duel:
                    yield f"{model}: ours / {peer} at its KL{title}", duel[1]["median"]


def _peers(report: Any) -> Iterator[tuple[str, float]]:
    for model, part in report["models"].items():
        for depth, decode in part.get("decode", {}).items():
            yield f"{model}: decode at {depth} / llama.cpp", decode["speed_ratio"]["median"]
        if "prefill" in part:
            yield f"{model}: prompt / llama.cpp", part["prefill"]["speed_ratio"]["median"]


def _parts(report: Any) -> Iterator[tuple[str, float]]:
    """Shares of a token, of parts that take a tenth of it at least."""
    for model, part in report["models"].items():
        for setting, row in part["rows"].items():
            found = {name: each["median"] for name, each in row["milliseconds"].items()}
            for name in PARTS:
                if found.get(name, 0) > found[TOKEN] / 10:
                    yield f"{model} {setting}: {name} / {TOKEN}", found[name] / found[TOKEN]


def _roofline(report: Any) -> Iterator[tuple[str, float]]:
    for result in report["results"]:
        for row in result["rows"]:
            what = f"{row['density']:.0%} of rows of {row['row_bytes']} bytes / streaming"
            yield f"{result['threads']} threads: {what}", row["of_streaming"]["median"]


def compare(one: Results, other: Results) -> str:
    """Both reports' ratios side by side, and the largest difference."""
    first, second = all_ratios(one), all_ratios(other)
    both = [name for name in first if name in second]
    far = {name: second[name] / first[name] - 1 for name in both}
    lines = [
        [name, f"{first[name]:.3f}", f"{second[name]:.3f}", f"{far[name]:+.1%}"] for name in both
    ]
    if not lines:
        return "The two reports have no ratio in common."
    worst = max(far, key=lambda name: abs(far[name]))
    within = sum(abs(each) <= 0.1 for each in far.values())
    text = (
        f"{table(['ratio', 'one', 'other', 'difference'], lines)}\n\n{within} of {len(far)} ratios "
        f"agree within 10 %; the farthest is {worst}: {far[worst]:+.1%}."
    )
    if "roofline" in one and "roofline" in other:
        first_speed, second_speed = _streaming(one), _streaming(other)
        text += (
            f"\nMemory streamed at {first_speed:.0f} and {second_speed:.0f} GB/s: where that "
            "differs, so do ratios between what waits for memory and what does not."
        )
    return text


def _streaming(results: Results) -> float:
    """GB/s of streaming reads on all threads."""
    most = max(results["roofline"]["results"], key=lambda each: each["threads"])
    return float(most["streaming_gb_s"]["median"])
