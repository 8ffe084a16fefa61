"""A sparsity plan as tables for a reader: what it is, what it was made of, and what it skips.

Notes of a plan are anybody's: numbers and texts stand in one table, and a note that is a list of
records (evidence) gets a table of its own. At a terminal tables fit its width.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparity_edge.plans.plan import PlanFamily
from sparity_edge.terminal.screen import Screen, one_line

SHOWN_SPARSITIES = (0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)


def show_plan(family: PlanFamily, gains: Sequence[Mapping[str, Any]]) -> None:
    """Print a plan to stdout.

    Args:
        family: the plan.
        gains: what it gains on this machine, as `gain_facts` gives it.
    """
    records = {key: value for key, value in family.notes.items() if _is_records(value)}
    _show_facts(family, {k: v for k, v in family.notes.items() if k not in records})
    for key, rows in records.items():
        columns = list(dict.fromkeys(name for row in rows for name in row))
        _show(_words(key), columns, ([row.get(name, "") for name in columns] for row in rows))
    _show("what it skips", ["sparsity", "level", "active weight fraction"], _positions(family))
    if gains:
        _show(
            "speed here over dense decoding",
            list(gains[0]),
            [list(each.values()) for each in gains],
        )


def gain_facts(folder: Path, family: PlanFamily) -> list[dict[str, Any]]:
    """What was measured of a plan's speed on this machine, ready for JSON.

    Args:
        folder: the packed folder that carries it.
        family: the plan.
    """
    from sparity_edge.measure.gains_kept import kept_of

    return [
        {
            "sparsity": each.sparsity,
            "threads": each.threads,
            "speed": round(gain.ratio, 2),
            "kl": family.least_kl(each.sparsity),
            "verdict": "faster" if gain.ratio > 1 else "slower than dense",
        }
        for each, gain in kept_of(folder, family.name)
    ]


def _positions(family: PlanFamily) -> Iterable[Sequence[str]]:
    for sparsity in (each for each in SHOWN_SPARSITIES if each <= family.most):
        plan = family.at_sparsity(sparsity)
        yield f"{sparsity:.2f}", f"{plan.level:.3f}", f"{1 - plan.sparsity:.3f}"
    last, active = float(family.levels[-1]), float(family.active[-1])
    yield f"{family.most:.2f}", f"{last:.3f}", f"{active:.3f}"


def _show_facts(family: PlanFamily, notes: Mapping[str, Any]) -> None:
    facts = {"method": family.method, "layout": family.layout, "sparsifies": list(family.tables)}
    rows = [[_words(key), value] for key, value in (*facts.items(), *notes.items())]
    _show(f"plan {family.name}", ["", ""], rows, header=False)


def _show(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, header: bool = True
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(one_line(title)),
        title_justify="left",
        box=box.SIMPLE_HEAD if header else None,
        show_header=header,
        pad_edge=False,
    )
    for name in columns:
        table.add_column(Text(_words(name)), justify="right" if header else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    Screen(sys.stdout, sys.stdout).console.print(table)


def _is_records(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and bool(value)
        and not isinstance(value, str)
        and all(isinstance(each, Mapping) for each in value)
    )


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(key)} {_cell(each)}" for key, each in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_cell, value))
    return f"{value:.4g}" if isinstance(value, float) else one_line(str(value))


def _words(key: str) -> str:
    return one_line(key.replace("_", " "))
