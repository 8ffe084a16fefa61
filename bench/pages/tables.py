"""Tables and captions of the pages, made from results files.

`SECTIONS` names the markers `<!-- NAME: begin -->` on a page, the results files that each needs and
what writes it: results by name of their file -> Markdown. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from pages import forms, limits, pareto_table, speculation
from pages.fronts import duels, front, made_anew, of_side, timed_rows, tokens_s, verdict
from pages.programs import floats_table, made_files, peers_table
from shared.names import OURS, PARTS, PEER, REST, TOKEN

from sparity_edge.measure.rounds import table, with_spread

Results = Mapping[str, Any]
MB = 1e6
LITTLE_LOSS = 0.03  # of KL: between the six and the four bits of the ladder


class Section(NamedTuple):
    """What stands between two markers."""

    needs: tuple[str, ...]  # names of results files, without .json
    write: Callable[[Results], str]


def quality_table(results: Results) -> str:
    """Perplexity of each number format."""
    lines = [
        [row["dtype"], f"{row['perplexity']:.3f}", f"{row['ratio']:.4f}"]
        for row in results["quality_dense"]["rows"]
    ]
    return table(["format", "perplexity", "ratio to f32"], lines)


def axes_table(results: Results) -> str:
    """KL of quantising floats along either axis of a matrix."""
    lines = [
        [model, row["dtype"], row["axis"], f"{row['kl']:.5f}"]
        for model, each in results["quality_dense"]["axes"].items()
        for row in each["rows"]
    ]
    return table(["model", "format", "groups along", "KL"], lines)


def plans_table(results: Results) -> str:
    """Decoding with plans against our dense pack and llama.cpp."""
    lines = []
    for name, model in quantised(results).items():
        for row in model["rows"]:
            against = [f"{row[key]['median']:.2f}" for key in ("against_dense", "against_llama")]
            kl = "" if row["kl"] is None else f"{row['kl']:.4f}"
            active = f"{row['active_weight_fraction']:.3f}"
            lines.append([name, row["case"], f"{_speed(row):.1f}", *against, active, kl])
    head = ["model", "case", "tok/s", "against our dense", "against llama.cpp",
            "active weight fraction", "KL"]  # fmt: skip
    return table(head, lines)


def quantised(results: Results) -> dict[str, Any]:
    """Results of plans.py by model, without those of weights in floats."""
    models = results["plans"]["models"]
    return {name: each for name, each in models.items() if not each.get("dtype")}


def summary_table(results: Results) -> str:
    """What a reader asks first: dense against llama.cpp, and the fastest plan that loses little."""
    lines = []
    for name, model in quantised(results).items():
        rows = {row["case"]: row for row in model["rows"]}
        if not any(row["kl"] for row in rows.values()):
            continue  # a speed whose loss was not measured
        plans = [
            row for row in rows.values()
            if row["kl"] and row["kl"] <= LITTLE_LOSS and row["against_dense"]["median"] > 1
        ]  # fmt: skip
        best = min(plans, key=lambda row: row["seconds_a_token"]["median"], default=None)
        cells = [name, *(f"{_speed(rows[case]):.0f}" for case in ("llama.cpp", "dense"))]
        cells.append(f"{rows['dense']['against_llama']['median']:.2f}")
        if best is None:
            lines.append([*cells, "none gains at so little loss", "", "", ""])
            continue
        read = f"{best['active_weight_fraction']:.2f}"
        ratio = f"{best['against_llama']['median']:.2f}"
        lines.append(
            [*cells, f"{best['case']}, {_speed(best):.0f}", ratio, read, f"{best['kl']:.3f}"]
        )
    head = ["model", "llama.cpp, tok/s", "ours, tok/s", "ratio", "ours with a plan, tok/s", "ratio",
            "active weight fraction", "KL"]  # fmt: skip
    return table(head, lines)


def _speed(row: Mapping[str, Any]) -> float:
    return float(1 / row["seconds_a_token"]["median"])


def ladder_table(results: Results) -> str:
    """The steps of llama.cpp's ladder, and what of ours loses no more."""
    lines = []
    for model, part in results["ladder"]["models"].items():
        rows = timed_rows(part)
        all_found, anew_found = duels(rows), duels(made_anew(rows))
        for name, row in of_side(rows, PEER).items():
            duel = [_duel(found.get(name)) for found in (all_found, anew_found)]
            lines.append([model, _starred(name, row), *_facts(row), *duel])
    head = ["model", "llama.cpp", "MB a token", "KL", "perplexity", "tok/s",
            "fastest of ours at no more KL", "of ours, numbers made anew"]  # fmt: skip
    return table(head, lines)


def ours_table(results: Results) -> str:
    """Our rows of the same run."""
    lines = []
    for model, part in results["ladder"]["models"].items():
        rows = timed_rows(part)
        best = front(rows, OURS)
        active = part["speed"]["active_weight_fraction"]
        for name, row in of_side(rows, OURS).items():
            mark = "yes" if name in best else ""
            lines.append([model, _starred(name, row), f"{active[name]:.3f}", *_facts(row), mark])
    head = ["model", "ours", "active weight fraction", "MB a token", "KL", "perplexity", "tok/s",
            "on our front"]  # fmt: skip
    return table(head, lines)


def _starred(name: str, row: Mapping[str, Any]) -> str:
    return f"{name} \\*" if row["file_numbers"] else name


def _facts(row: Mapping[str, Any]) -> list[str]:
    return [
        f"{row['bytes_a_token'] / MB:.0f}",
        f"{row['kl_mean']:.5f}",
        f"{row['perplexity']:.2f}",
        f"{tokens_s(row):.1f}",
    ]


def _duel(duel: Any) -> str:
    return "" if duel is None else f"{duel[0]}: {with_spread(duel[1])}"


def ladder_verdict(results: Results) -> str:
    """What the ladder comes to, in sentences."""
    lines = []
    for model, part in results["ladder"]["models"].items():
        rows, kind = timed_rows(part), part["file_kind"]
        lines.append(f"{model}: {verdict(rows)}")
        lines.append(
            f"The model's f32 numbers are those of its {kind} file, so rows marked \\* hold them "
            f"exactly and lose only what rounding activations costs. Without these rows, all "
            f"other numbers made anew from f32: {verdict(made_anew(rows))}"
        )
    return "\n\n".join(lines)


def parts_table(results: Results) -> str:
    """Milliseconds of each part of a token."""
    lines = []
    for model, part in results["parts"]["models"].items():
        for setting, row in part["rows"].items():
            found = row["milliseconds"]
            cells = [
                f"{found[name]['median']:.2f}" if name in found else ""
                for name in (*PARTS, REST, TOKEN)
            ]
            lines.append([model, setting, f"{row['active_weight_fraction']:.3f}", *cells])
    head = ["model", "setting", "active weight fraction", *(f"{part}, ms" for part in PARTS),
            f"{REST}, ms", f"{TOKEN}, ms"]  # fmt: skip
    return table(head, lines)


def memory_table(results: Results) -> str:
    """The most that a process held, and of what."""
    lines = []
    for model, part in results["latency"]["models"].items():
        used = part["memory_bytes"]
        keys = ("weights", "cache", "beyond_weights_and_cache", "peak")
        lines.append([model, ", ".join(part["dtypes"]), *(f"{used[key] / MB:.0f}" for key in keys)])
    return table(
        ["model", "formats", "weights, MB", "cache, MB", "the rest, MB", "peak, MB"], lines
    )


def first_start(results: Results) -> str:
    """What the first start of the small model costs in compiling, and every later one."""
    for model, part in results["latency"]["models"].items():
        if starts := part.get("starts"):
            cold, warm = (starts[f"{kind}_seconds"]["median"] for kind in ("cold", "warm"))
            machine = part["machine"]
            return (
                f"Compiling once took {cold:.0f} s with {model} on {machine['threads']} cores "
                f"({machine['cpu']}); every later start shows its first word after {warm:.1f} s."
            )
    return "Not measured."


def screen_table(results: Results) -> str:
    """Whether a screened LM head gives the logits that matter, and what it saves."""
    lines = []
    for model, part in results["screen"]["models"].items():
        for text, kinds in part["texts"].items():
            for kind, row in kinds.items():
                lines.append([
                    model, text, kind, f"{row['best_equal']} of {row['positions']}",
                    f"{row['of_top']:.3%}", f"{row['computed']['mean']:.1%}",
                    f"{part['speed'][kind]['ratio']:.2f}",
                ])  # fmt: skip
    head = ["model", "text", "decoding", "best token equal", "of the best 1 or 40", "rows computed",
            "times as fast"]  # fmt: skip
    return table(head, lines)


def roofline_table(results: Results) -> str:
    """Useful GB/s of random rows, as shares of streaming, on all threads."""
    most = max(results["roofline"]["results"], key=lambda each: each["threads"])
    share = {
        (row["row_bytes"], row["density"]): row["of_streaming"]["median"] for row in most["rows"]
    }
    densities = sorted({density for _, density in share}, reverse=True)
    lines = [
        [str(size), *(f"{share[size, density]:.0%}" for density in densities)]
        for size in sorted({size for size, _ in share})
    ]
    return table(["row bytes", *(f"{density:.0%} of the rows" for density in densities)], lines)


def endings_table(results: Results) -> str:
    """How answers ended under each sampling setting."""
    head = ["model", "setting", "answers", "ended by themselves", "in a loop", "tokens",
            "log-probability a token", "distinct 4-grams"]  # fmt: skip
    lines = [
        [
            model, setting, row["prompts"], row["ended"], row["loops"], f"{row['tokens']:.0f}",
            f"{row['logprob']:.2f}", f"{row['distinct_4grams']:.2f}",
        ]
        for model, settings in results["endings"]["models"].items()
        for setting, row in settings.items()
    ]  # fmt: skip
    return table(head, lines)


def robustness_table(results: Results) -> str:
    """What each campaign tried and what survived."""
    lines = [
        [name.replace("_", " "), each["tried"], each["survived"], each["tried"] - each["survived"]]
        for name, each in results["robustness"]["campaigns"].items()
    ]
    return table(["campaign", "tried", "survived", "faults"], lines)


SECTIONS: dict[str, Section] = {
    "quality": Section(("quality_dense",), quality_table),
    "axes": Section(("quality_dense",), axes_table),
    "summary": Section(("plans",), summary_table),
    "plans": Section(("plans",), plans_table),
    "within": Section(("within",), limits.within_table),
    "crossed": Section((pareto_table.RESULTS,), pareto_table.crossed_table),
    "folded": Section(("folded",), limits.folded_table),
    "rates": Section(("rates",), limits.rates_table),
    "predictor": Section(("predictor",), limits.predictor_table),
    "zero-gates": Section(("zero_gates",), limits.zero_gates_table),
    "prompt-neurons": Section(("prompt_neurons",), limits.prompt_table),
    "n-of-m": Section(("n_of_m",), partial(limits.masked_table, name="n_of_m")),
    "compensated": Section(("compensated",), partial(limits.masked_table, name="compensated")),
    "ladder": Section(("ladder",), ladder_table),
    "ladder-ours": Section(("ladder",), ours_table),
    "ladder-verdict": Section(("ladder",), ladder_verdict),
    "parts": Section(("parts",), parts_table),
    "memory": Section(("latency",), memory_table),
    "passes": Section(("latency",), speculation.passes_table),
    "screen": Section(("screen",), screen_table),
    "speculation": Section(("speculate",), speculation.gains_table),
    "speculation-peer": Section(("speculation_peer",), speculation.peer_table),
    "speculation-equal": Section(("speculation_equal",), speculation.equal_table),
    "first-start": Section(("latency",), first_start),
    "peers": Section(("peers",), peers_table),
    "quants": Section(("peers",), made_files),
    "floats": Section(("plans",), floats_table),
    "roofline": Section(("roofline",), roofline_table),
    "forms": Section(("forms",), forms.forms_table),
    "forms-faults": Section(("forms",), forms.faults),
    "endings": Section(("endings",), endings_table),
    "robustness": Section(("robustness",), robustness_table),
}
