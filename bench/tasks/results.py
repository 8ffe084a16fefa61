"""What the answers to a task's questions amount to, and how far two settings lie apart.

Differences are paired: the same questions are answered with and without a plan, so their error is
that of the changes and not of the questions. Knows nothing of models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def json_lines(path: Path) -> Iterator[Any]:
    """The objects of a file of one a line."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def shares(correct: str, active: float) -> dict[str, Any]:
    """Of answers, a 1 or 0 for each: accuracy with its binomial standard error; ready for JSON."""
    accuracy = correct.count("1") / len(correct)
    return {
        "accuracy": accuracy,
        "stderr": math.sqrt(accuracy * (1 - accuracy) / len(correct)),
        "active_weight_fraction": active,
        "correct": correct,
    }


def losses(nats: Sequence[float], active: float) -> dict[str, Any]:
    """Of a loss for each text: the mean with its standard error; ready for JSON."""
    mean, error = _mean(nats)
    return {
        "nats_per_token": mean,
        "stderr": error,
        "active_weight_fraction": active,
        "nats": [round(each, 5) for each in nats],
    }


def difference(row: Mapping[str, Any], dense: Mapping[str, Any]) -> tuple[float, float]:
    """Mean of a row minus the dense model's on the same questions, and its standard error."""
    key = "nats" if "nats" in row else "correct"
    pairs = zip(row[key], dense[key], strict=True)
    return _mean([float(mine) - float(its) for mine, its in pairs])


def cell(row: Mapping[str, Any] | None, dense: Mapping[str, Any] | None) -> str:
    """A row as text, with the difference from dense; empty where an earlier run did not ask."""
    if row is None:
        return ""
    share = "accuracy" in row
    text = f"{row['accuracy']:.1%}" if share else f"{row['nats_per_token']:.3f}"
    if dense is not None and row is not dense:
        change, error = difference(row, dense)
        paired = f"{100 * change:+.1f} ± {100 * error:.1f}"
        text += f" ({paired})" if share else f" ({change:+.3f} ± {error:.3f})"
    return text


def _mean(values: Sequence[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return mean, math.sqrt(variance / len(values))
