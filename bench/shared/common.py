"""What the benchmark scripts share: their options and their results files.

How cases are interleaved is in sparity_edge.measure, which the command `bench` uses as well.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from shared.as_cpu import LACKS, AsCpu, labelled
from shared.models import DEFAULT_MODEL

from converters.fan_out import Spread

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


def of_packs(
    packs: Iterable[Path], options: argparse.Namespace, measure: Callable[..., Any]
) -> dict[str, Any]:
    """A report with what `measure(pack, options, threads)` gives, by model; saved after each."""
    from sparity_edge.measure.machine import machine

    threads = thread_count(options.threads)
    report = {"machine": machine(threads), "models": models_so_far(options.out)}
    for pack in packs:
        report["models"][name_of_pack(pack, options)] = measure(pack, options, threads)
        save(options.out, report)
    return report


def name_of_pack(pack: Path, options: argparse.Namespace) -> str:
    """What a packed folder's rows stand under: --label, or the name of what it was made of."""
    from sparity_edge.model.opening import open_folder

    source = str(open_folder(pack).manifest.get("source", pack.name))
    return labelled(getattr(options, "label", None) or Path(source).stem)


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
        "--as-cpu", choices=LACKS, action=AsCpu, metavar="CPU",
        help=f"our kernels as on an older CPU: {', '.join(LACKS)}",
    )  # fmt: skip
    result.add_argument(
        "--out", type=Path, default=RESULTS / f"{name}.json", help="default: bench/results"
    )
    return result


def add_models(result: argparse.ArgumentParser) -> None:
    """--model, which may be given several times."""
    result.add_argument("--model", action="append", default=[], help=f"default: {DEFAULT_MODEL}")


def add_settings(result: argparse.ArgumentParser, default: str) -> None:
    """Positions of the sparsity dial, and --packs that carry their plans.

    Args:
        result: the parser.
        default: what is measured where none is named, for the help text.
    """
    result.add_argument(
        "settings", nargs="*", metavar="SETTING",
        help=f"PLAN:SPARSITY or PLAN@LEVEL; default: {default}",
    )  # fmt: skip
    result.add_argument(
        "--packs", type=Path, nargs="*", default=[], metavar="FOLDER",
        help="packed folders with further plans of the same model and number format",
    )  # fmt: skip


def add_windows(result: argparse.ArgumentParser) -> None:
    """How a text is cut: tokens of a window, how many, and every which one."""
    result.add_argument("--window", type=int, default=1024, help="tokens; default: %(default)s")
    result.add_argument("--windows", type=int, default=8, help="default: %(default)s")
    result.add_argument("--stride", type=int, default=4, help="default: %(default)s")


def add_spread(result: argparse.ArgumentParser) -> None:
    """--workers and --cluster: where independent pieces of a sweep run."""
    result.add_argument("--workers", type=int, default=1, help="processes; default: %(default)s")
    result.add_argument("--cluster", help="Dask scheduler instead, as tcp://host:port")


def spread_of(options: argparse.Namespace) -> Spread:
    """What `add_spread` has understood."""
    return Spread(options.workers, options.cluster)


def thread_count(asked: int | None) -> int:
    """The number of threads asked for, or what the runtime takes by itself."""
    from sparity_edge.system.threads import checked_threads

    return checked_threads(asked)
