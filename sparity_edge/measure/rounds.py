"""Cases measured interleaved, and what is made of their samples.

A shared machine drifts by a third within minutes, so nothing is measured alone: cases alternate,
a ratio is taken within a round, and what is reported is the median over rounds with its quartiles.
Knows nothing of what is measured.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sparity_edge.progress import Progress

Samples = dict[str, list[float]]
Name = TypeVar("Name", bound=Hashable)
Found = TypeVar("Found")


def interleaved(
    cases: Mapping[Name, Callable[[], Found]],
    rounds: int,
    *,
    pause: float = 0.0,
    warm: bool = True,
) -> Iterator[dict[Name, Found]]:
    """Rounds of all cases, every other one in reverse so that no case always comes first.

    Args:
        cases: what to measure, by name.
        rounds: how often each is called.
        pause: seconds between two calls: lets the threads of another runtime fall asleep.
        warm: whether a round is run before and thrown away.

    Yields:
        What each case returned in a round that is through; the thrown away one yields nothing.
    """
    for number in range(0 if warm else 1, rounds + 1):
        found = {}
        for name in list(cases) if number % 2 else list(cases)[::-1]:
            found[name] = cases[name]()
            time.sleep(pause)
        if number:
            yield found


def alternate(
    cases: Mapping[str, Callable[[], float]],
    rounds: int,
    *,
    pause: float = 0.0,
    say: Callable[[str], None] | None = None,
    warm: bool = True,
) -> Samples:
    """All samples of `interleaved` by case; each call returns one figure, `say` hears of rounds."""
    samples: Samples = {name: [] for name in cases}
    for turn, found in enumerate(interleaved(cases, rounds, pause=pause, warm=warm), 1):
        for name, value in found.items():
            samples[name].append(value)
        if say:
            say(f"round {turn}/{rounds}")
    return samples


def counted(
    cases: Mapping[Name, Callable[[], Found]], calls: int, label: str, progress: Progress
) -> dict[Name, Callable[[], Found]]:
    """Cases that also report progress: how many of all calls are through."""
    done = itertools.count()

    def told(case: Callable[[], Found]) -> Callable[[], Found]:
        def run() -> Found:
            progress(label, next(done), calls)
            return case()

        return run

    return {name: told(case) for name, case in cases.items()}


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
        "median": short(middle),
        "q1": short(low),
        "q3": short(high),
        "spread": short((high - low) / abs(middle) if middle else 0.0),
        "values": [short(value) for value in values],
    }


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample; 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def percentile(values: Sequence[float], percent: int) -> float:
    """The value that `percent` (1 to 99) of the values do not exceed, interpolated."""
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def short(value: float) -> float:
    """Six digits: more than any measurement has."""
    return float(f"{value:.6g}")


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """above / below, round by round."""
    if len(above) != len(below):
        raise ValueError(f"{len(above)} rounds of the one and {len(below)} of the other")
    return [a / b for a, b in zip(above, below)]


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, aligned: bool = False) -> str:
    """A Markdown table; numbers come as text that is already rounded.

    Args:
        head: titles of the columns.
        rows: their cells.
        aligned: fill cells up with blanks, for a terminal.
    """
    lines = [[str(cell) for cell in line] for line in (head, *rows)]
    widths = [max(3, *map(len, column)) if aligned else 0 for column in zip(*lines)]
    lines.insert(1, ["-" * max(3, width) for width in widths])
    filled = [[cell.ljust(width) for cell, width in zip(line, widths)] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in filled)


def with_spread(figure: Mapping[str, Any], digits: int = 2) -> str:
    """`1.23 (1.20-1.25)`: the median and the quartiles."""
    low, middle, high = (f"{figure[key]:.{digits}f}" for key in ("q1", "median", "q3"))
    return f"{middle} ({low}-{high})"
