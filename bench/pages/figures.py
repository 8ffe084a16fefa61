"""The pictures in docs/figures, drawn from results files with matplotlib.

Legible at half a page's width (450 pixels): large letters, few series, named where they are.
Colours are Okabe and Ito's, which the colour-blind can tell apart, and every series has a marker of
its own. The same input gives the same file: no dates, no random ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from pages import field_figure
from pages.captions import FIELD, checksum
from pages.fronts import Rows, front, made_anew, of_side, timed_rows, tokens_s
from pages.tables import MB, Results
from shared.names import OURS, PARTS, PEER, REST, TOKEN

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, PercentFormatter

BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777"
)  # fmt: skip
SIZE = (6.0, 4.6)  # inches; 75 pixels an inch on half a page
STYLE = {
    "font.size": 14, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none",
    "svg.hashsalt": "sparity-edge", "lines.linewidth": 2.5, "lines.markersize": 8,
    "font.family": "DejaVu Sans", "axes.labelsize": 14, "figure.constrained_layout.use": True,
}  # fmt: skip
LEAST_KL = 1e-5  # nats: a smaller KL is drawn here
SHOWN = ("auto", "centred")  # the plans whose speed over bytes is drawn


def draw(name: str, results: Results, path: Path) -> None:
    """Write one figure; the file's ending says whether as SVG or PNG."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=SIZE)
        if name in FIELD:
            field_figure.draw(figure, results, FIELD[name])
        else:
            DRAWN[name](figure.subplots(), results)
        metadata: dict[str, Any] = {"Description": f"inputs sha256:{checksum(name, results)}"}
        if path.suffix == ".svg":
            metadata["Date"] = None
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata=metadata, dpi=75)
        plt.close(figure)


def ladder(axes: Any, results: Results) -> None:
    """KL against speed, both sides."""
    part = next(iter(results["ladder"]["models"].values()))
    rows = timed_rows(part)
    for side, colour, marker in ((PEER, ORANGE, "s"), (OURS, BLUE, "o")):
        some, best = of_side(rows, side), front(rows, side)
        axes.plot(*_places(some, best), color=colour, zorder=2)
        for name, (x, y) in zip(some, zip(*_places(some, some))):
            face = "white" if some[name]["file_numbers"] else colour
            axes.plot(x, y, marker, color=colour, markerfacecolor=face, zorder=3,
                      alpha=1 if name in best else 0.5)  # fmt: skip
    anew = made_anew(rows)
    axes.plot(*_places(anew, front(anew, OURS)), color=BLUE, linestyle=":", zorder=2)
    axes.set_yscale("log")
    axes.set_ylim(LEAST_KL / 4, 4)
    speeds = [tokens_s(row) for row in rows.values()]
    axes.set_xlim(min(speeds) - 0.1 * max(speeds), 1.15 * max(speeds))
    axes.set_xlabel("tokens a second")
    axes.set_ylabel("KL to f32, nats")
    axes.grid(alpha=0.3)
    handles = [
        Line2D([], [], color=ORANGE, marker="s", label=PEER),
        Line2D([], [], color=BLUE, marker="o", label=OURS),
        Line2D([], [], color=BLUE, linestyle=":", label="4-bit made anew"),
    ]
    axes.figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False,
                       fontsize=12, columnspacing=1)  # fmt: skip
    _name_points(axes, {name: rows[name] for name in rows if not _has_dial(name)})


def _places(rows: Rows, names: Iterable[str]) -> tuple[list[float], list[float]]:
    some = [rows[name] for name in names]
    return [tokens_s(row) for row in some], [max(row["kl_mean"], LEAST_KL) for row in some]


def _has_dial(name: str) -> bool:
    return ":" in name or "@" in name


def _name_points(axes: Any, rows: Rows) -> None:
    """Names beside the points: the peer's on the left, ours on the right, none over another."""
    axes.figure.canvas.draw()  # fixes where points are
    for side, colour, across, align in ((PEER, ORANGE, -8, "right"), (OURS, BLUE, 8, "left")):
        taken = -1e9
        for name in of_side(rows, side):  # upwards
            place = tokens_s(rows[name]), max(rows[name]["kl_mean"], LEAST_KL)
            if place[1] == LEAST_KL:  # both sides' unquantised models are at the same place
                # One name above and left of it, where no line leads, the other below.
                above = side == PEER
                look = {"xytext": (-8, 8) if above else (0, -12), "va": "center"}
                look["ha"] = "right" if above else "center"
            else:
                y = axes.transData.transform(place)[1] * 72 / axes.figure.dpi
                taken = max(taken + 12, y)
                look = {"xytext": (across, taken - y), "ha": align, "va": "center"}
            axes.annotate(
                name, place, textcoords="offset points", color=colour, fontsize=11, **look
            )


def active(axes: Any, results: Results) -> None:
    """Speed against active weight fraction, relative to dense."""
    looks = ((BLUE, "o"), (SKY, "v"), (ORANGE, "s"), (GREEN, "^"), (PINK, "D"))
    shares = [0.48 + 0.01 * step for step in range(53)]
    axes.plot(shares, [1 / share for share in shares], "--", color=GREY, linewidth=1.5)
    axes.annotate("time = bytes", (0.62, 1 / 0.62), xytext=(-6, 6), textcoords="offset points",
                  color=GREY, fontsize=12, ha="right")  # fmt: skip
    for (label, curve), (colour, marker) in zip(_curves(results).items(), looks):
        axes.plot(*zip(*curve), color=colour, marker=marker, label=label)
    axes.axhline(1, color=GREY, linewidth=1)
    axes.set_xlim(1.02, 0.48)
    axes.set_ylim(0.5, 2.6)
    axes.set_xlabel("share of weight bytes read")
    axes.set_ylabel("speed against dense")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", frameon=False, fontsize=12)


def _curves(results: Results) -> dict[str, list[tuple[float, float]]]:
    """By name (share read, speed against dense) of a plan on a model, from dense on."""
    found: dict[str, list[tuple[float, float]]] = {}
    for model, part in results["plans"]["models"].items():
        for row in part["rows"]:
            plan = row["case"].replace("@", ":").partition(":")[0]
            if plan in SHOWN:
                curve = found.setdefault(f"{model}: {plan}", [])
                curve.append((row["active_weight_fraction"], row["against_dense"]["median"]))
    return {name: sorted([(1.0, 1.0), *curve], reverse=True) for name, curve in found.items()}


def parts(axes: Any, results: Results) -> None:
    """Shares of a token as stacked bars, its milliseconds beside them."""
    bars = {
        f"{model} {setting}": {part: each["median"] for part, each in row["milliseconds"].items()}
        for model, part in results["parts"]["models"].items()
        for setting, row in part["rows"].items()
    }
    left = [0.0] * len(bars)
    for part, colour in zip((*PARTS, REST), (SKY, ORANGE, BLUE, GREEN, PINK, YELLOW)):
        widths = [max(0.0, found.get(part, 0.0)) / found[TOKEN] for found in bars.values()]
        axes.barh([*bars], widths, 0.6, left=left, color=colour, label=part, edgecolor="white")
        left = [a + b for a, b in zip(left, widths)]
    for index, found in enumerate(bars.values()):
        axes.text(max(1.0, left[index]), index, f" {found[TOKEN]:.1f} ms", va="center", fontsize=12)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.tick_params(axis="y", labelsize=11)
    axes.set_xlabel("share of a token's time")
    axes.figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=11,
                       columnspacing=1, handlelength=1)  # fmt: skip


def roofline(axes: Any, results: Results) -> None:
    """Random rows against streaming, over the length of a row."""
    most = max(results["roofline"]["results"], key=lambda each: each["threads"])
    looks = {1.0: (GREY, "D"), 0.7: (GREEN, "^"), 0.5: (BLUE, "o"), 0.3: (ORANGE, "s")}
    for density, (colour, marker) in looks.items():
        some = sorted((row["row_bytes"], row["of_streaming"]["median"])
                      for row in most["rows"] if row["density"] == density)  # fmt: skip
        if some:
            axes.plot(*zip(*some), color=colour, marker=marker, label=f"{density:.0%}")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(_bytes))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("bytes of a row")
    axes.set_ylabel("of the streaming speed")
    axes.grid(alpha=0.3)
    axes.legend(title="rows read", loc="lower right", frameon=False)


def _bytes(value: float, _: int) -> str:
    return f"{value / 1024:.0f}K" if value >= 1024 else f"{value:.0f}"


def memory(axes: Any, results: Results) -> None:
    """What a process holds, as stacked bars."""
    models = results["latency"]["models"]
    names = [name.replace("@", "\n@").replace("synthetic-", "synthetic\n") for name in models]
    left = [0.0] * len(models)
    kinds = (("weights", "weights", BLUE), ("cache", "cache", ORANGE),
             ("beyond_weights_and_cache", "the rest", GREY))  # fmt: skip
    for key, label, colour in kinds:
        widths = [part["memory_bytes"][key] / MB for part in models.values()]
        axes.barh(names, widths, 0.5, left=left, color=colour, label=label, edgecolor="white")
        left = [a + b for a, b in zip(left, widths)]
    for index, total in enumerate(left):
        axes.text(total, index, f" {total:.0f}", va="center")
    axes.margins(x=0.15)
    axes.set_ylim(-0.75, max(0.75, len(models) - 0.25))
    axes.invert_yaxis()
    axes.set_xlabel("MB at the peak")
    axes.figure.legend(loc="outside upper center", ncols=3, frameon=False)


DRAWN: dict[str, Callable[[Any, Results], None]] = {
    "ladder": ladder, "active": active, "parts": parts, "roofline": roofline, "memory": memory
}  # fmt: skip
