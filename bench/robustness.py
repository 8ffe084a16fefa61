"""Rough days, repeated: damaged files, killed writers, full disks, and many users at once.

Each campaign counts what was tried and what survived, and lists its faults by the number of the
case, which makes that case again (`--first NUMBER`). Runs on tiny models with random weights, in a
temporary folder; needs a system with fork. Results: bench/results/robustness.json.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared.common import parser, save, say

FULL = {"mutated": 20_000, "killed": 300, "full_disk": 60, "together": 200}
QUICK = {"mutated": 40, "killed": 6, "full_disk": 6, "together": 8}
WHAT = {
    "mutated": "damaged files",
    "killed": "writers killed at a random moment",
    "full_disk": "writers on a full disk",
    "together": "users of one model at once",
}


def run(campaign: str, count: int, first: int) -> dict[str, Any]:
    """The results of one campaign."""
    from campaigns import interrupted, mutated, together

    with tempfile.TemporaryDirectory(prefix="robustness-") as place:
        folder = Path(place).resolve()
        os.environ["SPARITY_EDGE_CACHE"] = str(folder / "packs")
        campaigns: dict[str, Callable[[], dict[str, Any]]] = {
            "mutated": lambda: mutated.run(count, first, say),
            "killed": lambda: interrupted.killed(folder, count, first, say),
            "full_disk": lambda: interrupted.full_disk(folder, count, first, say),
            "together": lambda: together.run(folder, count, say),
        }
        return campaigns[campaign]()


def campaigns_so_far(path: Path) -> dict[str, Any]:
    """The campaigns that a results file already holds; a long run may be split."""
    if not path.exists():
        return {}
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["campaigns"]
    return report


def show(report: dict[str, Any]) -> str:
    """The counts as a table."""
    lines = ["| campaign | tried | survived | faults |", "|---|---|---|---|"]
    for name, each in report.items():
        counts = f"{each['tried']} | {each['survived']} | {len(each['faults'])}"
        lines.append(f"| {WHAT[name]} | {counts} |")
    return "\n".join(lines)


def main() -> int:
    """Run the campaigns that were asked for; exit code 1 where there was a fault."""
    result = parser(__doc__, "robustness")
    result.add_argument(
        "campaigns", nargs="*", metavar="CAMPAIGN", help=f"of {', '.join(FULL)}; default: all"
    )
    result.add_argument("--count", type=int, help="how many of each; default: those of the table")
    result.add_argument("--first", type=int, default=0, help="the first case; default: 0")
    options = result.parse_args()
    if unknown := set(options.campaigns) - set(FULL):
        result.error(f"there is no campaign {min(unknown)}")
    counts, report = QUICK if options.quick else FULL, campaigns_so_far(options.out)
    variable = "SPARITY_EDGE_CACHE"
    before = os.environ.get(variable)
    try:
        for name in options.campaigns or FULL:
            report[name] = run(name, options.count or counts[name], options.first)
            save(options.out, {"python": sys.version.split()[0], "campaigns": report})
    finally:
        os.environ.pop(variable, None)
        if before is not None:
            os.environ[variable] = before
    print(show(report))
    return int(any(each["faults"] for each in report.values()))


if __name__ == "__main__":
    raise SystemExit(main())
