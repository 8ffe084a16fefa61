"""What papers claim of their methods beside what was measured here, and why the two differ.

The claims are constants with the place they stand in; ours come out of results files. A paper
measures other models in other ways, so what is compared is an order or a ratio, never a level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sparity_edge.measure.rounds import table

Results = Mapping[str, Any]
LARGE, SMALL = "Qwen2.5-Coder-1.5B", "SmolLM2-int4"


class Claim(NamedTuple):
    """One paper's figures beside ours."""

    method: str
    claimed: str
    ours: Callable[[Results], str]
    why: str


def claims_table(results: Results) -> str:
    """A row for each paper: its claim, our figures, and the reason where they differ."""
    lines = [[each.method, each.claimed, each.ours(results), each.why] for each in CLAIMS]
    return table(["method", "the paper", "here", "agreement, or why not"], lines)


def _larosa(results: Results) -> str:
    pairs = (("SmolLM2-f32-layers", "larosa@0.5"), ("SmolLM2-f32-global", "larosa@0.5"),
             ("SmolLM2-f32-plain", "teal@0.5"))  # fmt: skip
    told = [_quality(results, label, setting, "perplexity_ratio") for label, setting in pairs]
    return (
        f"perplexity ratio with adapters {told[0]}, in one basis {told[1]}, TEAL {told[2]} "
        "(SmolLM2-f32)"
    )


def _n_of_m(results: Results) -> str:
    sizes = [_quality(results, LARGE, f"nm-{size}@0.5", "perplexity_ratio")
             for size in (4, 8, 16, 32)]  # fmt: skip
    rules = _rules(results, "n_of_m")
    return (
        f"2:4 to 16:32 {', '.join(sizes)}, TEAL "
        f"{_quality(results, LARGE, 'teal@0.5', 'perplexity_ratio')} (1.5B); KL of 2:4 "
        f"{rules.get('2:4', '-')}, of weights {rules.get('2:4 of weights', '-')} (SmolLM2)"
    )


def _search(results: Results) -> str:
    rows = results["rates"]["models"].get("SmolLM2 f32", {}).get("rows", {})
    names = ("uniform", "evopress-uniform", "fisher", "evopress-fisher")
    told = ", ".join(
        f"{name} {rows[key]['kl']:.3f}" for name in names if (key := f"{name}:0.5") in rows
    )
    return f"KL at half of the bytes: {told} (SmolLM2 f32)"


def _low_rank(results: Results) -> str:
    rules = _rules(results, "compensated")
    told = ", ".join(f"alpha {each} {rules.get(f'R-Sparse, alpha {each}', '-')}"
                     for each in ("1", "0.95", "0.8"))  # fmt: skip
    return f"KL at half of the weights: {told}"


def _against(*settings: str) -> Callable[[Results], str]:
    """KL and active weight fraction of some settings, both models."""

    def told(results: Results) -> str:
        parts = []
        for label, name in ((SMALL, "SmolLM2-int4"), (LARGE, "1.5B")):
            cells = [
                f"`{each}` {_quality(results, label, each, 'kl_mean')} at "
                f"{_quality(results, label, each, 'active_weight_fraction')}"
                for each in settings
            ]
            parts.append(f"{', '.join(cells)} ({name})")
        return "KL " + "; ".join(parts)

    return told


CLAIMS = (
    Claim(
        "CATS, CHESS",
        "HellaSwag at level 0.5 of Llama-3.1-8B-Instruct: 78.1, 78.6, dense 79.2",
        _against("cats@0.5", "chess-ffn@0.5"),
        "the order agrees, by more than theirs: KL sees what changes no answer",
    ),
    Claim(
        "LaRoSA",
        "perplexity at level 0.5 over dense: Llama-2-7B 1.07, Llama-3-8B 1.18, Qwen2.5-7B 1.08; "
        "TEAL 2.3 points behind on 7 tasks",
        _larosa,
        "the order agrees at nominal levels; small models bear less. Their sparsity does not count "
        "adapters and their rates average to less than the level: at equal bytes nothing is left",
    ),
    Claim(
        "N:M",
        "perplexity over dense, Llama-2-7B-chat: 2:4 1.47, 8:16 1.17; 2:4 of weights 6.1; FFN of "
        "Qwen2.5-7B: 2:4 1.35, 8:16 1.15, free choice 1.11",
        _n_of_m,
        "the order agrees, and that weights bear far less; all linears of a small model lose more "
        "than the FFN of a large one. Their shifts gained nothing either, their VAR a little",
    ),
    Claim(
        "EvoPress",
        "pruned weights at 70 %: up to 3 times lower perplexity than uniform rates",
        _search,
        "that rates which differ beat uniform ones by far agrees. Theirs tries 64 children in each "
        "of 400 generations, ours is a short search; least Fisher cost gives what it looks for, so "
        "that a search from there finds next to nothing",
    ),
    Claim(
        "R-Sparse",
        "mean of 8 tasks at 50 % of Llama-3-8B: 66.2, dense 69.4; with a rank 67.5, without 66.3",
        _low_rank,
        "not found: every byte of the rank is one that a channel used better. Their own search "
        "gives no rank to 193 of 224 linears, and their code sparsifies the last tenth of a text",
    ),
    Claim(
        "WINA",
        "mean of 8 tasks at 50 % of Llama-3-8B: TEAL 70.0, with their rotation 70.4, WINA 71.1",
        _against("wina@0.4", "teal@0.4"),
        "not found: TEAL's static thresholds beat its top k by more than its score gains. Theirs "
        "searches rates and rotates, with two changes of basis a layer that are not counted",
    ),
    Claim(
        "SCAP",
        "1.5 times the gain in speed that CATS has at equal quality",
        _against("scap@0.5", "cats@0.5"),
        "agrees in bytes: it reads less than CATS at no more loss",
    ),
    Claim(
        "WiSparse",
        "50 % of Llama-3.1-8B keeps 97 % of its score, 2.2 points above the best other method",
        _against("wisparse@0.4", "teal@0.4"),
        "the score alone gains little on the 1.5B and nothing on SmolLM2; the paper's budgets by "
        "block, which it searches, are not in ours",
    ),
)


def _quality(results: Results, label: str, setting: str, name: str) -> str:
    row = results["quality"]["models"].get(label, {}).get("rows", {}).get(setting, {})
    return f"{row[name]:.3f}" if name in row else "not measured"


def _rules(results: Results, name: str) -> dict[str, str]:
    """KL by rule of one script of masked references, on SmolLM2."""
    models = results[name]["models"].values()
    rows = next(iter(models), {}).get("rows", [])
    return {row["rule"]: f"{row['kl']:.3f}" for row in rows}
