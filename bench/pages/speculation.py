"""Tables of speculation: what it gains on each kind of text, and that it changes none.

Made from the results of speculation/speculate.py and speculation/equal.py; measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparity_edge.measure.rounds import table


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
