"""The tables of docs/methods.md, made from results files: quality of every method, and what others
have published beside it.

Each table is a function of all results, by the name of the file: {"quality": ..., "spread": ...}.
`TABLES` names the markers on the page, `<!-- NAME: begin -->`, that each stands between. Measures
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pages.field import wins_table
from pages.limits import adapter_table
from pages.published import claims_table
from pages.tables import Results, Section
from tasks.every import TASKS
from tasks.results import cell

from sparity_edge.measure.rounds import table
from sparity_edge.plans.setting import DENSE

MODELS = ("SmolLM2-f32", "SmolLM2-int4", "Qwen2.5-Coder-1.5B")
COMPARED = ((MODELS[0], "teal"), (MODELS[0], "teal-profile"), (MODELS[2], "teal"))
VARIED = (
    "SmolLM2-f32",
    "SmolLM2-int8",
    "SmolLM2-int4",
    "Qwen2.5-Coder-1.5B",
)  # with `-variants`: fewer windows
METHODS = (
    "cats@0.3",
    "cats@0.5",
    "chess-ffn@0.3",
    "chess-ffn@0.5",
    "chess@0.3",
    "chess@0.5",
    "teal@0.25",
    "teal@0.4",
    "teal@0.5",
    "teal-profile@0.25",
    "teal-profile@0.4",
    "teal-profile@0.5",
    "wisparse@0.25",
    "wisparse@0.4",
    "scap@0.5",
    "wina@0.4",
    "nm-4@0.5",
    "nm-8@0.5",
    "nm-16@0.5",
    "nm-32@0.5",
    "centred@0.5",
    "centred@0.7",
    "centred@0.8",
    "auto:0.25",
    "auto:0.35",
    "auto:0.5",
)
ON_THE_DIAL = (
    *("cats", "chess-ffn", "chess", "centred", "teal", "teal-profile", "teal-greedy"),
    *("wisparse", "wina", "scap", "nm-4", "nm-8", "nm-16", "nm-32", "auto"),
)
SHARES, DIALLED = (0.25, 0.4, 0.5), (MODELS[2], MODELS[1])
# What each variant is to be compared with comes first.
VARIANTS = (
    "chess-ffn@0.5",
    "chess-second@0.5",
    "chess-down-half@0.5",
    "chess-down@0.5",
    "chess-top@0.5",
    "chess-scaled@0.5",
    "chess-log-up@0.5",
    "chess-log-down@0.5",
    "chess-variance@0.5",
    "chess-peak@0.5",
    "chess-top-down@0.5",
    "chess-top-variance@0.5",
    "chess-down-variance@0.5",
    "chess-all@0.5",
    "teal@0.4",
    "teal-profile@0.4",
    "teal-top@0.4",
    "teal-scaled@0.4",
    "teal-norm-half@0.4",
    "teal-norm@0.4",
    "column-norms@0.4",
)
# One model as it comes, in one basis, and in a basis for each layer; CATS, TEAL and LaRoSA at the
# levels that LaRoSA's paper has, then the dial.
BASES = {
    "as it comes": "SmolLM2-f32-plain",
    "global": "SmolLM2-f32-global",
    "layers": "SmolLM2-f32-layers",
    "1.5B in int8, global": "Qwen2.5-Coder-1.5B-int8-global",
}
ALONE = ("larosa-rates", "larosa-static", "larosa-rates-static")  # rates, thresholds, or both
ROTATED = (
    *(f"{plan}@{level}" for plan in ("cats", "teal", "larosa") for level in (0.25, 0.4, 0.5)),
    *(f"{plan}@0.4" for plan in ("teal-top", *ALONE)),
    *(f"{plan}:{share}" for plan in ("teal", "larosa", *ALONE, "auto") for share in (0.25, 0.35)),
)
# Perplexity on WikiText over that of the dense model: Llama-2-7B and Llama-3-8B, computed from the
# perplexities in TEAL's table (5.07: 5.09, 5.22, 5.43; 5.87: 5.94, 6.21, 6.67).
PUBLISHED_RATIOS = {
    "teal@0.25": ("1.004", "1.012"),
    "teal@0.4": ("1.030", "1.058"),
    "teal@0.5": ("1.071", "1.136"),
}


def methods_table(results: Results) -> str:
    """Every method at its usual levels; by model active weight fraction, KL, perplexity ratio."""
    models = [name for name in MODELS if name in results["quality"]["models"]]
    lines = [
        [f"`{setting}`", *(_cell(_row(results, name, setting)) for name in models)]
        for setting in METHODS
    ]
    return table(["setting", *models], lines)


def rotated_table(results: Results) -> str:
    """LaRoSA and what it is to be compared with, by the basis of the residual stream."""
    lines = [
        [f"`{setting}`", *(_cell(_row(results, model, setting)) for model in BASES.values())]
        for setting in ROTATED
    ]
    return table(["setting", *BASES], lines)


def published_table(results: Results) -> str:
    """Perplexity ratios of TEAL as published, and ours."""
    lines = []
    for setting, published in PUBLISHED_RATIOS.items():
        level = setting.partition("@")[2]
        ours = [_row(results, model, f"{plan}@{level}") for model, plan in COMPARED]
        lines.append([level, *published, *(_figure(row, "perplexity_ratio", 3) for row in ours)])
    head = ["level", "TEAL, Llama-2-7B", "TEAL, Llama-3-8B"]
    return table([*head, *(f"`{plan}`, {model}" for model, plan in COMPARED)], lines)


def dial_table(results: Results) -> str:
    """Every method at the same shares of the dense pack's bytes: KL, and the speed beside dense."""
    lines = []
    for plan in ON_THE_DIAL:
        cells = [
            _dialled(results, model, f"{plan}:{share}") for model in DIALLED for share in SHARES
        ]
        lines.append([f"`{plan}`", *cells])
    columns = [f"{model}, {1 - share:.0%} read" for model in DIALLED for share in SHARES]
    return table(["plan", *columns], lines)


def _dialled(results: Results, model: str, setting: str) -> str:
    row = _row(results, model, setting)
    if row is None:
        return ""
    timed = results["times"]["models"].get(model, {}).get("rows", {}).get(setting)
    speed = f", {timed['against_dense']['median']:.2f}x" if timed else ""
    return f"{row['kl_mean']:.4f}{speed}"


def variants_table(results: Results) -> str:
    """The three strategies and other variants: active weight fraction, KL, perplexity ratio."""
    models = [each for each in VARIED if f"{each}-variants" in results["quality"]["models"]]
    lines = []
    for setting in VARIANTS:
        rows = [_row(results, f"{model}-variants", setting) for model in models]
        if any(row is not None for row in rows):
            lines.append([f"`{setting}`", *map(_varied, rows)])
    return table(["setting", *models], lines)


def _varied(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    active, ratio = (_figure(row, key, 3) for key in ("active_weight_fraction", "perplexity_ratio"))
    return f"{active}, {row['kl_mean']:.4f} ± {row['kl_stderr']:.4f}, {ratio}"


def tasks_table(results: Results) -> str:
    """Accuracy of the 1.5B on questions, with the paired difference from dense."""
    rows = results["quality"]["models"][f"{MODELS[2]}-tasks"]["rows"]
    tasks = [task for task in TASKS if task in rows[str(DENSE)]]
    lines = [
        [f"`{setting}`", _figure(row, "kl_mean", 4),
         *(cell(row.get(task), rows[str(DENSE)][task]) for task in tasks)]
        for setting, row in rows.items()
    ]  # fmt: skip
    return table(["setting", "KL", *tasks], lines)


def density_table(results: Results) -> str:
    """Share of active neurons by kind of text, with the KL, and how far the kinds lie apart."""
    lines, kinds = [], ()
    for name, rows in results["spread"]["plans"].items():
        kinds = [kind for kind in rows if isinstance(rows[kind], Mapping)]
        cells = [_density(rows[kind]) for kind in kinds]
        lines.append([f"`{name}`", *cells, f"{100 * rows['spread']:.1f}"])
    return table(["plan", *kinds, "spread, points"], lines)


# Marker on the page -> the results files that its table needs, and what makes it.
TABLES = {
    "methods": Section(("quality",), methods_table),
    "rotated": Section(("quality",), rotated_table),
    "dial": Section(("quality", "times"), dial_table),
    "variants": Section(("quality",), variants_table),
    "tasks": Section(("quality",), tasks_table),
    "density": Section(("spread",), density_table),
    "published": Section(("quality",), published_table),
    "claims": Section(("quality", "n_of_m", "rates", "compensated"), claims_table),
    "wins": Section(("quality",), wins_table),
    "lm-eval": Section(("lm_eval",), adapter_table),
}


def _row(results: Results, model: str, setting: str) -> Mapping[str, Any] | None:
    """What was measured of a setting; None where it was not."""
    row = results["quality"]["models"].get(model, {}).get("rows", {}).get(setting)
    return row if row and "kl_mean" in row else None


def _cell(row: Mapping[str, Any] | None) -> str:
    """`0.757, 0.176, 1.182`; empty where nothing was measured."""
    if row is None:
        return ""
    figures = (("active_weight_fraction", 3), ("kl_mean", 4), ("perplexity_ratio", 3))
    return ", ".join(_figure(row, name, digits) for name, digits in figures)


def _density(row: Mapping[str, Any]) -> str:
    return f"{100 * row['density']:.1f} ({row['kl_mean']:.3f})"


def _figure(row: Mapping[str, Any] | None, name: str, digits: int) -> str:
    return "" if row is None else f"{row[name]:.{digits}f}"
