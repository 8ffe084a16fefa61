"""Tables of speculation: prices of passes, gains of guesses on each text, and equal answers.

Made from the results of latency.py and of the scripts in speculation/; measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparity_edge.measure.rounds import table, with_spread


def passes_table(results: Mapping[str, Any]) -> str:
    """What a pass over a few tokens costs against one over a single token."""
    lines = []
    for model, part in results["latency"]["models"].items():
        over = part.get("passes", {}).get("times_one", {})
        for kind, name in (("together", "sequences"), ("of one", "tokens of one sequence")):
            cells = [with_spread(each) for key, each in over.items() if key.startswith(kind)]
            if cells:
                lines.append([model, name, *cells])
    return table(["model", "of", "2", "4", "8"], lines)


def gains_table(results: Mapping[str, Any]) -> str:
    """Decoding with guesses against decoding token by token, by text and who guesses."""
    lines = [
        [
            model, kind, way, side, f"{row['plain_tokens_a_second']:.1f}",
            f"{row['tokens_a_second']:.1f}", f"{row['gain']:.2f}",
            f"{min(row['gain_by_prompt']):.2f}", f"{row['tokens_a_pass']:.2f}",
            f"{row['accepted']} of {row['drafted']}", row["prompts"],
        ]
        for model, kinds in results["speculate"]["models"].items()
        for kind, ways in kinds.items()
        for way, sides in ways.items()
        for side, row in sides.items()
    ]  # fmt: skip
    head = ["model", "text", "tokens drawn", "guesses by", "token by token, tok/s", "tok/s",
            "times as fast", "least of a prompt", "tokens a pass", "accepted",
            "prompts"]  # fmt: skip
    return table(head, lines)


def equal_table(results: Mapping[str, Any]) -> str:
    """Answers that were compared, all guesses read."""
    lines = [
        [
            model, threads, f"{row['equal']} of {row['answers']}",
            f"{row['caches_equal']} of {row['answers']}", row["tokens"],
            row["drafted"], row["accepted"],
        ]
        for model, by_threads in results["speculation_equal"]["models"].items()
        for threads, row in by_threads.items()
    ]  # fmt: skip
    head = ["model", "threads", "answers equal", "KV caches equal", "tokens", "drafted", "accepted"]
    return table(head, lines)


def peer_table(results: Mapping[str, Any]) -> str:
    """Our guesses against llama.cpp's, and the best of each against the best of the other."""
    lines = []
    for model, kinds in results["speculation_peer"]["models"].items():
        for kind, sides in kinds.items():
            best = max(row["tokens_a_second"] for side, row in sides.items() if not _is_ours(side))
            for side, row in sides.items():
                speed = row["tokens_a_second"]
                ratio = f"{speed / best:.2f}" if _is_ours(side) else ""
                told = f"{row['accepted']} of {row['drafted']}"
                lines.append([model, kind, side, f"{speed:.1f}", ratio, told, row["prompts"]])
    head = ["model", "text", "side", "tok/s", "of llama.cpp's best", "accepted", "prompts"]
    return table(head, lines)


def _is_ours(side: str) -> bool:
    return side.startswith("ours")
