"""Cases measured by turns, and what is made of their samples.

A shared machine drifts by a third within minutes, so nothing is measured alone: cases take turns,
a ratio is taken within a round, and what is reported is the median over rounds with its quartiles.
Knows nothing of what is measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Samples = dict[str, list[float]]


def alternate(
    cases: Mapping[str, Callable[[], float]],
    rounds: int,
    *,
    pause: float = 0.0,
    say: Callable[[str], None] | None = None,
    warm: bool = True,
) -> Samples:
    """Measure cases by turns, every other round in reverse so that none always comes first.

    Args:
        cases: what to measure, by name; each call returns one figure.
        rounds: how often each is called.
        pause: seconds between two calls: lets the threads of another runtime fall asleep.
        say: told how far it is.
        warm: whether a round is run before and thrown away.
    """
    samples: Samples = {name: [] for name in cases}
    for turn in range(0 if warm else 1, rounds + 1):
        names = list(cases) if turn % 2 else list(cases)[::-1]
        for name in names:
            value = cases[name]()
            if turn:
                samples[name].append(value)
            time.sleep(pause)
        if say:
            say(f"round {turn}/{rounds}")
    return samples


def timed(run: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles and spread (interquartile range / median), with the values themselves."""
    middle = statistics.median(values)
    low, high = middle, middle
    if len(values) > 1:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": _short(middle),
        "q1": _short(low),
        "q3": _short(high),
        "spread": _short((high - low) / abs(middle) if middle else 0.0),
        "values": [_short(value) for value in values],
    }


def _short(value: float) -> float:
    """Six digits: more than any measurement has."""
    return float(f"{value:.6g}")


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """above / below, round by round."""
    if len(above) != len(below):
        raise ValueError(f"{len(above)} rounds of the one and {len(below)} of the other")
    return [a / b for a, b in zip(above, below)]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers come as text that is already rounded."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def with_spread(figure: Mapping[str, Any], digits: int = 2) -> str:
    """`1.23 (1.20-1.25)`: the median and the quartiles."""
    low, middle, high = (f"{figure[key]:.{digits}f}" for key in ("q1", "median", "q3"))
    return f"{middle} ({low}-{high})"
