"""The table of pareto.py: every plan in every number format, by quality, bytes and speed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparity_edge.measure.rounds import table, with_spread

RESULTS = "pareto-smollm2-135m@wheel"  # the file that the page is made of


def crossed_table(results: Mapping[str, Any]) -> str:
    """All rows of SmolLM2 in three number formats."""
    return rows_table(results[RESULTS]["models"])


def rows_table(models: Mapping[str, Any]) -> str:
    """All rows in one table."""
    lines = [
        [
            name,
            setting,
            f"{row['active_weight_fraction']:.3f}",
            f"{row['kl_mean']:.4f}",
            f"{row['kl_p99']:.3f}",
            f"{row['perplexity']:.2f} (x{row['perplexity_ratio']:.3f})",
            f"{row['tokens_s']['median']:.1f}",
            with_spread(row["ratio"]),
        ]
        for name, part in models.items()
        for setting, row in part["rows"].items()
    ]
    head = ["model", "setting", "active", "KL", "KL p99", "perplexity", "tok/s", "against dense"]
    return table(head, lines)
