"""Tables of us and other programs: dense decoding and prompts, quantisations, weights in floats.

Made from the results of peers.py and plans.py; measures nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from shared.names import FORK, OURS, PEER
from shared.quant_files import KINDS

from sparity_edge.measure.rounds import table, with_spread

HEAD = ["model", "file", "MB of the file", "MB a token", "ours, tok/s", "llama.cpp, tok/s",
        "ratio (quartiles)", "ratio to ik_llama.cpp", "of the streaming ceiling"]  # fmt: skip


def peers_table(results: Mapping[str, Any]) -> str:
    """Dense decoding and prompts against llama.cpp on the same file: no KL, the same weights."""
    lines = []
    for model, part in results["peers"]["models"].items():
        if "kind" in part:  # a file that was made, of which there are tables of their own
            continue
        for depth, decode in part.get("decode", {}).items():
            speeds = _speeds(decode["seconds_a_token"], 1)
            share = f"{decode['of_streaming']['median']:.0%}"
            ratio, fork = with_spread(decode["speed_ratio"]), _fork_ratio(decode)
            lines.append([model, f"decode at {depth}", *speeds, ratio, fork, share])
        prompts = [part["prefill"]] if "prefill" in part else []
        for prefill in [*part.get("prompts", {}).values(), *prompts]:
            speeds = _speeds(prefill["seconds"], prefill["tokens"])
            ratio, fork = with_spread(prefill["speed_ratio"]), _fork_ratio(prefill)
            lines.append([model, f"prompt of {prefill['tokens']}", *speeds, ratio, fork, ""])
    head = ["model", "task", "ours, tok/s", "llama.cpp, tok/s", "ratio (quartiles)",
            "ratio to ik_llama.cpp", "of the streaming ceiling"]  # fmt: skip
    return table(head, lines)


def _fork_ratio(part: Mapping[str, Any]) -> str:
    found = part.get("against", {}).get(FORK)
    return with_spread(found) if found else ""


def _speeds(seconds: Mapping[str, Any], tokens: int) -> list[str]:
    return [f"{tokens / seconds[side]['median']:.1f}" for side in (OURS, PEER)]


def made_files(results: Mapping[str, Any]) -> str:
    """`quants_table` of the results of peers.py."""
    return quants_table(results["peers"]["models"])


def quants_table(models: Mapping[str, Any]) -> str:
    """A line for each file that was made, then one with the geometric mean of each model.

    Args:
        models: reports of peers.py by name; those of files that were not made are left out.
    """
    lines: list[list[object]] = []
    made = [each for each in models.values() if "kind" in each]
    for model in dict.fromkeys(each["of"] for each in made):
        reports = {each["kind"]: each for each in made if each["of"] == model}
        rows = [reports[kind] for kind in KINDS if kind in reports]
        lines += [_line(model, report) for report in rows]
        means = [_mean(rows, peer) for peer in (PEER, FORK)]
        lines.append([model, f"geometric mean of {len(rows)}", "", "", "", "", *means, ""])
    return table(HEAD, lines) if lines else "Not measured."


def _line(model: str, report: Mapping[str, Any]) -> list[object]:
    part = report["decode"]["0"]
    speeds = [f"{1 / part['seconds_a_token'][side]['median']:.1f}" for side in (OURS, PEER)]
    against = part["against"].get(FORK)
    return [
        model, report["kind"], f"{report['file_bytes'] / 1e6:.0f}",
        f"{part['bytes_a_token'] / 1e6:.0f}", *speeds, with_spread(part["speed_ratio"]),
        with_spread(against) if against else "", f"{part['of_streaming']['median']:.0%}",
    ]  # fmt: skip


def _mean(rows: list[Any], peer: str) -> str:
    parts = [row["decode"]["0"] for row in rows]
    ratios = [part["speed_ratio"] if peer == PEER else part["against"].get(peer) for part in parts]
    if not all(ratios):
        return ""
    return f"{statistics.geometric_mean([each['median'] for each in ratios]):.2f}"


def floats_table(results: Mapping[str, Any]) -> str:
    """Decoding of weights in floats, with plans and without, against PyTorch."""
    lines = []
    for name, model in results["plans"]["models"].items():
        for row in model["rows"] if model.get("dtype") else ():
            against = {key[len("against ") :]: row[key] for key in row if key.startswith("against")}
            ratios = ", ".join(f"{other} {each['median']:.2f}" for other, each in against.items())
            speed = f"{1 / row['seconds_a_token']['median']:.2f}"
            active = f"{row['active_weight_fraction']:.3f}"
            lines.append([name, row["case"], speed, ratios, active])
    head = ["model", "case", "tok/s", "times as fast as", "active weight fraction"]
    return table(head, lines) if lines else "Not measured."
