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

from converters.pack_options import PackOptions
from converters.store import known
from sparity_edge.choices import SPARSE_LAYOUTS
from sparity_edge.measure.machine import machine
from sparity_edge.model.opening import open_folder
from sparity_edge.packed.manifest import is_packed
from sparity_edge.plans.plan_file import plan_names, read_plan
from sparity_edge.plans.setting import Setting
from sparity_edge.terminal.screen import Bars, Screen

WIKITEXT = Path("wikitext2") / "wiki.test.raw"
SPARSITIES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6)


def bars() -> Bars:
    """A progress bar on stderr, or a line for each piece of work where that is no terminal."""
    return Bars(Screen(sys.stderr, sys.stderr), terminal=sys.stderr.isatty())


def packs(model: str, dtype: str | None, more: Sequence[Path] = ()) -> list[Path]:
    """The packed folders that may carry plans of a model: itself or those in the cache, and `more`.

    A plan needs a layout that lets weights be skipped, so one model's plans are spread over packs.
    """
    if is_packed(model):
        return [Path(model), *more]
    found = (known(model, PackOptions(dtype=dtype, layout=layout)) for layout in SPARSE_LAYOUTS)
    return [*filter(None, found), *more]


def settings_of(
    folders: Sequence[Path], wanted: Sequence[str], sparsities: Iterable[float]
) -> dict[Path, list[Setting]]:
    """By folder: the positions asked for; of none, every plan at each sparsity it reaches.

    Raises:
        SystemExit: no folder carries a plan that was asked for.
    """
    settings = [Setting.parse(text) for text in wanted]
    missing = {setting.plan for setting in settings if not setting.dense}
    result: dict[Path, list[Setting]] = {}
    done: set[str] = set()
    for folder in folders:
        names = [name for name in plan_names(folder) if name not in done]
        done |= set(names)
        missing -= set(names)
        result[folder] = [setting for setting in settings if setting.plan in names]
        for name in names if not wanted else ():
            most = read_plan(open_folder(folder), name).most
            result[folder] += [Setting(name, share) for share in sparsities if share <= most]
    if missing:
        raise SystemExit(
            f"No pack carries a plan named {', '.join(sorted(map(str, missing)))}; there are "
            f"{', '.join(sorted(done)) or 'none'} (sparity-edge calibrate makes them)."
        )
    return {folder: found for folder, found in result.items() if found}


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
    protocol = {**protocol, "shares_of": "dense pack"}  # those of older rows were of a sparse pack
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"models": {}}
    part = report["models"].get(name)
    if part is None or part["protocol"] != protocol:
        part = report["models"][name] = {"protocol": dict(protocol), "rows": {}}
    part["machine"] = machine(threads)
    return report, part
