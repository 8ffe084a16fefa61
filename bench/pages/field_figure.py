"""All methods of one model in one picture: KL against bytes, and under it against time.

Two panels one above the other, for half a page's width. Of each family the settings that no other
of it beats are filled and joined by a line; the rest stays, hollow and small, so that what lost can
be seen. The lower panel is left out where no times were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MultipleLocator,
    NullFormatter,
    PercentFormatter,
)
from pages.field import BYTES, LEAST_KL, TIME, Point, Results, by_family, front, place, points

LOOKS = {
    "auto": ("#0072B2", "o"),
    "centred gates": ("#009E73", "^"),
    "rates by search": ("#56B4E9", "P"),
    "thresholds on inputs": ("#D55E00", "s"),
    "top-k of a token": ("#CC79A7", "D"),
    "N:M": ("#E69F00", "v"),
    "gates (CATS, CHESS)": ("#000000", "X"),
    "others": ("#999999", "*"),
}
NAMES = {
    BYTES: "share of weight bytes read",
    TIME: "time of a token over dense",
}
SIZE = (6.0, 4.4)  # inches, of one panel


def draw(figure: Any, results: Results, model: str) -> None:
    """Fill an empty figure."""
    families = by_family(points(results, model))
    panels = [BYTES]
    if any(point.time is not None for some in families.values() for point in some):
        panels.append(TIME)
    width, height = SIZE
    figure.set_size_inches(width, height * len(panels) + 0.4)
    for axes, what in zip(figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels):
        _panel(axes, families, what)
    handles = [
        Line2D([], [], color=LOOKS[family][0], marker=LOOKS[family][1], label=family)
        for family in families
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False, fontsize=12,
                  columnspacing=1.2)  # fmt: skip


def _panel(axes: Any, families: dict[str, list[Point]], what: str) -> None:
    for family, some in families.items():
        colour, marker = LOOKS[family]
        best = front(some, what)
        axes.plot(*_places(best, what), color=colour, marker=marker, zorder=3)
        rest = [point for point in some if point not in best and place(point, what) is not None]
        axes.plot(*_places(rest, what), linestyle="none", color=colour, marker=marker,
                  markerfacecolor="none", markersize=5, markeredgewidth=1, alpha=0.6)  # fmt: skip
    if what == TIME:
        axes.axvline(1, color="#777777", linewidth=1, zorder=0)
        axes.annotate("dense", (1, 1), xycoords=("data", "axes fraction"), xytext=(4, -12),
                      textcoords="offset points", color="#777777", fontsize=12)  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MultipleLocator(0.1))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel(NAMES[what])
    axes.set_ylabel("KL to dense, nats")
    axes.grid(alpha=0.3)


def _places(some: Sequence[Point], what: str) -> tuple[list[float], list[float]]:
    return [float(place(point, what) or 0) for point in some], [
        max(point.kl, LEAST_KL) for point in some
    ]
