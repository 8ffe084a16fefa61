"""The figure of pareto.py: loss of quality against bytes and against speed.

Left KL over the share of weight bytes read, right over tokens a second, both for every plan. Colour
and marker tell plans apart (Okabe and Ito's palette, which the colour-blind can read), the dash of
a line tells number formats apart. Everything is large enough to be read at half a page's width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))
FLOOR = 1e-4  # nats: a smaller KL is drawn here
DOTS = 200  # an inch


def draw(models: Mapping[str, Any], path: Path) -> Path:
    """Write the figure as PNG.

    Args:
        models: of the results file.
        path: where to.
    """
    plans = list(dict.fromkeys(
        row["plan"] for part in models.values() for row in part["rows"].values() if _sparse(row)
    ))  # fmt: skip
    look = {plan: (COLOURS[i % 8], MARKERS[i % 8]) for i, plan in enumerate(plans)}
    with plt.rc_context({"font.size": 15, "axes.spines.top": False, "axes.spines.right": False}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 6.2), sharey=True)
        for dash, part in zip(DASHES * len(models), models.values()):
            for plan in plans:
                rows = _rows(part, plan)
                fractions = [row["active_weight_fraction"] for row in rows]
                _curve(left, fractions, rows, look[plan], dash)
                _curve(right, [_speed(part, row) for row in rows], rows, look[plan], dash)
            for row in _rows(part, None):
                right.axvline(_speed(part, row), color="#666666", linestyle=dash, zorder=0)
        _label(left, right)
        handles = [
            Line2D(
                [], [], color=colour, marker=marker, markersize=9, linewidth=2.5, label=str(plan)
            )
            for plan, (colour, marker) in look.items()
        ]
        if len(models) > 1:
            handles += [
                Line2D([], [], color="#666666", linestyle=dash, linewidth=2.5, label=name)
                for dash, name in zip(DASHES * len(models), _short(models))
            ]
        figure.legend(handles=handles, loc="upper center", ncols=4, frameon=False, handlelength=2.4)
        figure.text(0.5, 0.015, _caption(models), ha="center", fontsize=12, color="#444444")
        top = 0.98 - 0.055 * -(-len(handles) // 4)
        figure.tight_layout(rect=(0, 0.05, 1, top))
        figure.savefig(path, dpi=DOTS)
        plt.close(figure)
    return path


def _curve(
    axes: Any, x: Sequence[float], rows: Sequence[Any], look: tuple[str, str], dash: Any
) -> None:
    colour, marker = look
    axes.plot(
        x,
        [max(row["kl_mean"], FLOOR) for row in rows],
        color=colour,
        marker=marker,
        linestyle=dash,
        linewidth=2.5,
        markersize=8,
        markeredgecolor="white",
    )


def _label(left: Any, right: Any) -> None:
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter("")
    left.set_ylabel("KL to dense, nats a token")
    left.set_xlabel("share of weight bytes read")
    left.invert_xaxis()
    right.set_xlabel("tokens a second")
    right.set_title("grey lines: dense", fontsize=13, color="#444444")
    left.set_title("less is read to the right", fontsize=13, color="#444444")
    for axes in (left, right):
        axes.grid(alpha=0.3)


def _sparse(row: Mapping[str, Any]) -> bool:
    return row["sparsity"] is not None or row["level"] is not None


def _rows(part: Mapping[str, Any], plan: str | None) -> list[Any]:
    """Of one plan in the order of what they read; None: the dense row."""
    rows = sorted(part["rows"].values(), key=lambda row: row["active_weight_fraction"])
    if plan is None:
        return [row for row in rows if not _sparse(row)]
    return [row for row in rows if _sparse(row) and row["plan"] == plan]


def _speed(part: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """Of dense decoding, times the ratio measured within rounds."""
    (dense,) = _rows(part, None)
    return float(dense["tokens_s"]["median"] * row["ratio"]["median"])


def _short(models: Mapping[str, Any]) -> list[str]:
    """Number formats where they tell the parts apart, else their names."""
    formats = ["/".join(part["dtypes"]) for part in models.values()]
    return formats if len(set(formats)) == len(formats) else list(models)


def _caption(models: Mapping[str, Any]) -> str:
    name, part = next(iter(models.items()))
    about, protocol = part["machine"], part["protocol"]
    return (
        f"{name.rpartition(' ')[0] or name}; {about['cpu'].partition(' (')[0]}, "
        f"{about['threads']} threads, {about['date'][:10]}; {protocol['text']}, "
        f"{protocol['windows']} x {protocol['window']} tokens"
    )
