"""What the benchmark scripts share: their options and their results files.

How cases are measured by turns is in sparity_edge.measure, which the command `bench` uses as well.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results"
PAUSE = 0.05  # seconds between two sides; the threads of both sleep by then


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
    from sparity_edge.system.threads import checked_threads

    return checked_threads(asked)
