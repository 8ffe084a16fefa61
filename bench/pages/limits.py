"""Tables of bench/limits: what plans may skip within a KL, what rounding or masking costs.

Knows what these results files hold, and no page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparity_edge.measure.rounds import table, with_spread


def within_table(results: Mapping[str, Any]) -> str:
    """The speed-up that the bytes of each plan bound, and the one measured."""
    lines = [
        [
            name,
            row["case"],
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['bound']:.2f}",
            with_spread(row["against_dense"]),
        ]
        for name, model in results["within"]["models"].items()
        for row in model["rows"]
    ]
    return table(["model", "case", "MB a token", "speed-up by bytes", "measured"], lines)


def folded_table(results: Mapping[str, Any]) -> str:
    """KL of centred gates by the number format of M, a column for each level."""
    models = results["folded"]["models"]
    levels = sorted({row["level"] for part in models.values() for row in part["rows"]})
    lines = []
    for name, part in models.items():
        for dtype in dict.fromkeys(row["format"] for row in part["rows"]):
            rows = {row["level"]: row for row in part["rows"] if row["format"] == dtype}
            share = next(iter(rows.values()))["bytes"] / part["dense_layer_bytes"]
            kls = [f"{rows[level]['kl']:.4f}" if level in rows else "" for level in levels]
            lines.append([name, dtype, f"{share:.3f}", *kls])
    return table(
        ["model", "M in", "of the layers' bytes", *(f"KL at {x:g}" for x in levels)], lines
    )


def rounded_table(results: Mapping[str, Any]) -> str:
    """What rounding the activations of prompts to bytes costs."""
    lines = [
        [name, *(f"{part[key]:.5f}" for key in ("kl", "kl_first")), f"{part['same_top']:.4f}"]
        for name, part in results["rounded"]["models"].items()
    ]
    return table(
        ["model", "KL to 16-bit activations", "of the first 64", "same likeliest token"], lines
    )


def rates_table(results: Mapping[str, Any]) -> str:
    """KL and active fraction of rates by where they come from, a row each, by budget."""
    lines = [
        [
            name,
            f"{row['budget']:g}",
            key.rpartition(":")[0],
            f"{row['active']:.3f}",
            f"{row['kl']:.4f}",
            f"{row['seconds'] / 60:.0f}" if "seconds" in row else "",
        ]
        for name, part in results["rates"]["models"].items()
        for key, row in part["rows"].items()
    ]
    return table(["model", "sparsity", "rates", "active", "KL", "minutes of search"], lines)


def predictor_table(results: Mapping[str, Any]) -> str:
    """What low-rank guesses of active neurons find, by model and rank."""
    lines = [
        [
            f"{name} ({part['activation']}, {part['matter']:.2f} matter)",
            row["fit"] + (f", rank {row['rank']}" if row["rank"] else ""),
            f"{row['size']:.3f}",
            f"{row['recall']:.3f}",
            f"{row['carried']:.3f}",
            f"{row['kl']:.3f}",
        ]
        for name, part in results["predictor"]["models"].items()
        for row in part["rows"]
    ]
    return table(
        ["model", "predictor", "of the FFN's weights", "recall", "of squared (g u)", "KL"], lines
    )


def prompt_table(results: Mapping[str, Any]) -> str:
    """KL of neurons that the prompt fixes, by distance from the prompt."""
    lines = [
        [
            name,
            row["text"],
            f"{row['kept']:g}",
            row["way"] if row["way"] != "on drift" else f"on drift ({row['rebuilt']:.1f} times)",
            *(f"{kl:.3f}" for kl in row["kl"]),
        ]
        for name, part in results["prompt_neurons"]["models"].items()
        for row in part["rows"]
    ]
    kls = (f"KL of tokens {start} to {start + 255}" for start in (0, 256, 512))
    return table(["model", "text", "neurons kept", "chosen", *kls], lines)


def zero_gates_table(results: Mapping[str, Any]) -> str:
    """Decoding that skips zero gates against decoding that reads everything."""
    lines = [
        [
            row["dtype"],
            f"{row['not_zero']:.2f}",
            f"{row['active']:.2f}",
            with_spread(row["against_dense"]),
        ]
        for row in results["zero_gates"]["rows"]
    ]
    return table(
        ["weights", "gates not zero", "active weight fraction", "times as fast as dense"], lines
    )


def masked_table(results: Mapping[str, Any], name: str) -> str:
    """KL of each rule of one script of masked references, and the share of weights it reads."""
    report = results[name]
    lines = [
        [model, row["rule"], f"{row['reads']:.3f}", f"{row['kl']:.3f}"]
        for model, part in report["models"].items()
        for row in part["rows"]
    ]
    return table(["model", "rule", "reads", "KL"], lines)


def adapter_table(results: Mapping[str, Any]) -> str:
    """Accuracies by adapter of lm-eval, and how alike each answers to the harness's own."""
    lines = []
    for model, sides in results["lm_eval"]["models"].items():
        reference = sides.get("transformers")
        for side, tasks in sides.items():
            for task, row in tasks.items():
                shares = [
                    f"{sum(row[name]) / row['questions']:.1%}" for name in ("acc", "acc_norm")
                ]
                alike = ["", ""]
                other = row if reference is None else reference[task]
                if other is not row and other["questions"] == row["questions"]:
                    alike = _alike(row, other)
                lines.append([model, task, side, row["questions"], *shares, *alike])
    head = ["model", "task", "adapter", "questions", "acc", "acc_norm", "same choice",
            "log-likelihood apart"]  # fmt: skip
    return table(head, lines)


def _alike(row: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """Questions with the same likeliest ending, and the mean and largest difference in nats."""
    pairs = list(zip(row["logprobs"], reference["logprobs"], strict=True))
    same = sum(mine.index(max(mine)) == its.index(max(its)) for mine, its in pairs)
    apart = [abs(a - b) for mine, its in pairs for a, b in zip(mine, its, strict=True)]
    return [f"{same} of {len(pairs)}", f"{sum(apart) / len(apart):.4f}, at most {max(apart):.4f}"]
