"""What following a plan adds to the bytes that every token reads: folded matrices and gains.

Pieces of one vector with the same rule choose the same channels, so they share one choice and the
gain that goes with it. Knows nothing of models and kernels.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.packed.layout import Layout
from sparity_edge.plans.plan import SITES, SelectionRule, SparsityPlan


def choice_of(piece: str, rule: SelectionRule) -> tuple[Any, ...]:
    """What tells one choice of channels from another, to be hashed and compared.

    Args:
        piece: a key of `SITES`.
        rule: by which its channels are chosen.
    """
    parts = (rule.weights, rule.centre, rule.predictor, rule.gain)
    values = (None if each is None else each.tobytes() for each in parts)
    return (SITES[piece], rule.rule, rule.value, *values)


def gain_layout(gains: int, hidden: int) -> Layout:
    """How gains are stored that read one normalised input: a row of float32 each."""
    return Layout("f32", "output", (gains, hidden))


def added_bytes(plan: SparsityPlan) -> int:
    """Bytes that the plan adds to those that are read for a token, whatever it skips."""
    total = sum(mean.layout.nbytes for mean in plan.means if mean is not None)
    for pieces in plan.layers:
        distinct = {choice_of(piece, rule): rule.gain for piece, rule in pieces.items()}
        total += sum(
            gain_layout(1, len(gain) - 1).nbytes for gain in distinct.values() if gain is not None
        )
    return total
