"""The table of forms.py: every family in every form, in one cell each.

Knows what that results file holds, and no page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparity_edge.measure.rounds import table

# Of the largest logit: activations of 16 bits beside integers give 2e-4 mostly, and 1.5e-3 where
# attention is sharp (Granite's factor on scores).
INTEGERS = 2e-3
LLAMA = "llama"


def forms_table(results: Mapping[str, Any]) -> str:
    """A row for each form, a column for each family: what is as in transformers, and the time."""
    families = results["forms"]["models"]
    forms = dict.fromkeys(form for rows in families.values() for form in rows)
    lines = [
        [form, *(_cell(rows.get(form), families[LLAMA].get(form)) for rows in families.values())]
        for form in forms
    ]
    return table(["form", *families], lines)


def faults(results: Mapping[str, Any]) -> str:
    """What is refused, or not as in transformers, in a sentence each."""
    found = []
    for family, rows in results["forms"]["models"].items():
        for form, row in rows.items():
            if "none" not in row and (what := _fault(row)):
                found.append(f"- {family}, {form}: {what}")
    return "\n".join(found) or "Nothing is refused, and nothing differs."


def _cell(row: Mapping[str, Any] | None, llama: Mapping[str, Any] | None) -> str:
    """Logits, greedy tokens, the fraction that is read with the plan, and time beside Llama's."""
    if row is None or "none" in row:
        return ""
    if "refused" in row:
        return "refused"
    plan = f"{row['plan']:.2f}" if "plan" in row else "none"
    times = ""
    if llama is not None and "microseconds" in llama and "microseconds" in row:
        times = f", {row['microseconds'] / llama['microseconds']:.2f}"
    return f"{row['logits']:.0e}, {row['greedy']}/{row['tokens']}, {plan}{times}"


def _fault(row: Mapping[str, Any]) -> str:
    """What is wrong with a row; empty: nothing."""
    if "refused" in row:
        return str(row["refused"])
    told = []
    if row["logits"] > INTEGERS:
        told.append(f"logits differ by {row['logits']:.1e} of the largest")
    if row["greedy"] < row["tokens"]:
        told.append(f"{row['greedy']} of {row['tokens']} greedy tokens are the same")
    if "no_plan" in row:
        told.append(str(row["no_plan"]))
    return "; ".join(told)
