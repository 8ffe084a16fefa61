"""Rows of a results file: one for each position of the dial, kept from run to run.

A run that was broken off, or that adds a plan, measures only what is missing; rows measured in
another way (other text, other windows) are not taken for the same. Knows nothing of figures.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import machine

from sparity_edge import Generator
from sparity_edge.divergence import Setting
from sparity_edge.terminal import Bars, Screen

WIKITEXT = Path("wikitext2") / "wiki.test.raw"
SPARSITIES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)


def bars() -> Bars:
    """A progress bar on stderr, or a line for each piece of work where that is no terminal."""
    return Bars(Screen(sys.stderr, sys.stderr), enabled=True, terminal=sys.stderr.isatty())


def settings_of(
    generator: Generator, wanted: Sequence[str], sparsities: Iterable[float]
) -> list[Setting]:
    """The positions asked for; of none, every plan of the model at each sparsity it reaches."""
    if wanted:
        return [Setting.parse(text) for text in wanted]
    from sparity_edge.plan_file import plan_names, read_plan

    reach = {name: read_plan(generator.path, name).most for name in plan_names(generator.path)}
    return [
        Setting(name, sparsity=share)
        for name, most in reach.items()
        for share in sparsities
        if share <= most
    ]


def by_plan(settings: Iterable[Setting]) -> list[list[Setting]]:
    """Positions of one plan together: they share a dense pass and are saved together."""
    groups: dict[str | None, list[Setting]] = {}
    for setting in settings:
        groups.setdefault(setting.plan, []).append(setting)
    return list(groups.values())


def kept(
    path: Path, name: str, protocol: Mapping[str, Any], threads: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(all that the file holds, the part of `name` to be added to).

    A part that was measured under another protocol is begun anew.
    """
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"models": {}}
    part = report["models"].get(name)
    if part is None or part["protocol"] != protocol:
        part = report["models"][name] = {"protocol": dict(protocol), "rows": {}}
    part["machine"] = machine(threads)
    return report, part
