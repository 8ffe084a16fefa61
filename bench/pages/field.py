"""All methods of one model on one scale: families, the front of each, and who wins where.

Joins what quality.py measured of a setting (KL, active weight fraction) with what limits/times.py
measured of it (time of a token over dense). Needs no matplotlib and measures nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sparity_edge.measure.rounds import table

Results = Mapping[str, Any]
BYTES, TIME = "bytes", "time"
LEVELS = {BYTES: (0.75, 0.6, 0.5), TIME: (0.8, 0.7, 0.6)}  # of dense
REACH = 0.02  # of a level: a curve that ends so near to it is drawn on
LEAST_KL = 1e-5

# Labels of quality.json by model; rows of a rotated pack are told apart by what they stand under.
MODELS: dict[str, dict[str, str]] = {
    "SmolLM2-f32": {
        "": "SmolLM2-f32",
        "global": "SmolLM2-f32-global",
        "layers": "SmolLM2-f32-layers",
    },
    "SmolLM2-int4": {"": "SmolLM2-int4"},
    "Qwen2.5-Coder-1.5B": {
        "": "Qwen2.5-Coder-1.5B",
        "global": "Qwen2.5-Coder-1.5B-global",
        "layers": "Qwen2.5-Coder-1.5B-layers",
    },
}
# By family the beginnings of its plans' names; the longest that fits counts.
FAMILIES = {
    "auto": ("auto",),
    "centred gates": ("centred",),
    "rates by search": ("evopress",),
    "thresholds on inputs": ("teal", "wisparse", "scap", "column-norms", "larosa-static",
                             "larosa-rates-static"),
    "top-k of a token": ("teal-top", "teal-norm", "wina", "larosa"),
    "N:M": ("nm-",),
    "gates (CATS, CHESS)": ("cats", "chess"),
}  # fmt: skip
OURS = ("auto", "centred gates", "rates by search")  # the other families are published


class Point(NamedTuple):
    """One setting of one plan."""

    plan: str  # with the basis, where it is not the model's own: `larosa, layers`
    setting: str
    kl: float
    active: float
    time: float | None  # of a token, over that of dense


def points(results: Results, model: str) -> list[Point]:
    """All settings of a model whose loss was measured, dense excepted."""
    found = []
    times = results.get("times", {"models": {}})["models"]
    for basis, label in MODELS[model].items():
        rows = results["quality"]["models"].get(label, {}).get("rows", {})
        timed = times.get(label, {}).get("rows", {})
        for setting, row in rows.items():
            plan = setting.partition("@")[0].partition(":")[0]
            if plan == "dense" or "kl_mean" not in row or (basis and plan == "auto"):
                continue
            ratio = timed.get(setting, {}).get("against_dense", {}).get("median")
            name = f"{plan}, {basis}" if basis else plan
            time = 1 / ratio if ratio else None
            found.append(Point(name, setting, row["kl_mean"], row["active_weight_fraction"], time))
    return found


def family_of(plan: str) -> str:
    """The family of a plan, by the longest beginning of its name."""
    fits = [
        (len(start), family)
        for family, starts in FAMILIES.items()
        for start in starts
        if plan.startswith(start)
    ]
    return max(fits, default=(0, "others"))[1]


def by_family(some: Iterable[Point]) -> dict[str, list[Point]]:
    """Points by family, in the order of FAMILIES."""
    found: dict[str, list[Point]] = {}
    for point in some:
        found.setdefault(family_of(point.plan), []).append(point)
    return {family: found[family] for family in (*FAMILIES, "others") if family in found}


def place(point: Point, what: str) -> float | None:
    """Where a point stands on an axis, as a share of dense; None: not measured."""
    return point.active if what == BYTES else point.time


def front(some: Iterable[Point], what: str) -> list[Point]:
    """The points that none of the others beats in both loss and `what`, from the least on."""
    placed = sorted((x, point.kl, point) for point in some if (x := place(point, what)) is not None)
    best: list[Point] = []
    for _, kl, point in placed:
        if not best or kl < best[-1].kl:
            best.append(point)
    return best


def kl_at(some: Sequence[Point], what: str, level: float) -> float | None:
    """KL of a plan at a share of dense: log KL interpolated between the points of its front.

    None where the plan was not measured on both sides of it, and ends farther off than REACH.
    """
    curve = [(float(place(point, what) or 0), math.log(max(point.kl, LEAST_KL)))
             for point in front(some, what)]  # fmt: skip
    if len(curve) < 2:
        return math.exp(curve[0][1]) if curve and abs(curve[0][0] - level) <= REACH / 2 else None
    if not curve[0][0] - REACH <= level <= curve[-1][0] + REACH:
        return None
    last = next((i for i in range(1, len(curve)) if curve[i][0] >= level), len(curve) - 1)
    (x0, y0), (x1, y1) = curve[last - 1], curve[last]
    return math.exp(y0 + (y1 - y0) * (level - x0) / (x1 - x0))


def ranking(some: Iterable[Point], what: str, level: float) -> list[tuple[str, float]]:
    """(plan, KL) at a share of dense, the least loss first."""
    plans: dict[str, list[Point]] = {}
    for point in some:
        plans.setdefault(point.plan, []).append(point)
    found = [(plan, kl_at(each, what, level)) for plan, each in plans.items()]
    return sorted(((plan, kl) for plan, kl in found if kl is not None), key=lambda each: each[1])


def wins_table(results: Results) -> str:
    """By model and share of dense: the plan of least KL, the next one, the best published one."""
    lines = []
    for model in MODELS:
        some = points(results, model)
        for what, levels in LEVELS.items():
            for level in levels:
                order = ranking(some, what, level)
                if not order:
                    continue
                published = [each for each in order if family_of(each[0]) not in OURS][:1]
                cells = [_named(each) for each in (*order[:2], *published)]
                lines.append(
                    [model, f"{level:.0%} of its {what}", *cells, *[""] * (3 - len(cells))]
                )
    return table(["model", "at, of dense", "least KL", "next", "best published"], lines)


def _named(found: tuple[str, float]) -> str:
    plan, basis = (*found[0].split(", "), "")[:2]
    return f"`{plan}`{f' ({basis})' if basis else ''} {found[1]:.4f}"
