"""What the benchmark scripts share: rounds, medians, the machine, results as JSON and tables.

A shared machine drifts by a third within minutes, so nothing is measured alone: cases take turns,
a ratio is taken within a round, and what is reported is the median over rounds with its quartiles.
Knows nothing of what is measured.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("sparity-edge", "numpy", "numba", "llvmlite", "gguf", "llama-cpp-python")
Samples = dict[str, list[float]]


def machine(threads: int | None = None) -> dict[str, Any]:
    """CPU, memory and versions, ready for JSON."""
    import psutil

    from sparity_edge.kernels.cpu import features

    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu_name(),
        "cpu_features": sorted(features()),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "threads": threads,
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    """The name on the box; platform.processor() says no more than x86_64 on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split("\t: ", 1) for line in lines if "\t: " in line)
    facts = {key.strip(): value for key, value in facts.items()}
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts.get('cpu family')}, model {facts.get('model')})"


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


def models_so_far(path: Path) -> dict[str, Any]:
    """The reports that a results file already holds, by model; a long run may be split."""
    if not path.exists():
        return {}
    reports: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["models"]
    return reports


def save(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report as JSON; an interrupted run leaves the older report in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        text = json.dumps(report, indent=1, allow_nan=False)
        partial.write_text(_short_lists(text) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    say(f"written: {path}")


def _short_lists(text: str) -> str:
    """Put lists of plain numbers on one line: a sample is not worth a line of its own."""
    return re.sub(
        r"\[\s+([-+.\deE,\s]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text
    )


def say(text: str) -> None:
    """One line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def parser(doc: str | None, name: str) -> argparse.ArgumentParser:
    """A parser with the options that all scripts have."""
    assert doc
    result = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--threads", type=int, help="default: all physical cores")
    result.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    result.add_argument("--quick", action="store_true", help="a few cases and rounds only")
    result.add_argument(
        "--out", type=Path, default=RESULTS / f"{name}.json", help="default: bench/results"
    )
    return result


def thread_count(asked: int | None) -> int:
    """The number of threads asked for, or what the runtime takes by itself."""
    from sparity_edge.loading import checked_threads

    return checked_threads(asked)
