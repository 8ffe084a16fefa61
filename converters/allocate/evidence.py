"""What a plan really costs: KL divergence to the dense model and bytes read, on held-out text.

An estimate spreads the budget; this is the check on it that is stored with the plan. Every
position but the first of each window is sparse, as `generator.logits` is with sparse prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from converters.calibration.checkpoint import NOWHERE, Checkpoint
from converters.calibration.windows import Windows
from sparity_edge.arrays import Floats
from sparity_edge.logits import kl_divergence, log_normaliser
from sparity_edge.model.model import Model
from sparity_edge.plans.plan import SparsityPlan
from sparity_edge.progress import Progress, silent

ENOUGH = 0.5  # nats: whoever goes further need not be told how much worse that is


@dataclass(frozen=True)
class Evidence:
    """One plan, measured."""

    sparsity: float  # that the plan was made for
    active: float  # active weight fraction while reading the text
    kl: float  # nats a position


def measure(
    model: Model,
    plans: Sequence[SparsityPlan],
    windows: Windows,
    *,
    progress: Progress = silent,
    checkpoint: Checkpoint = NOWHERE,
) -> list[Evidence]:
    """Compare plans with the dense model.

    Args:
        model: whose KV cache is emptied; it is left dense.
        plans: what to try, the most careful first; the model's layout must allow them. None is
            tried behind the first whose KL on the first window is above `ENOUGH`.
        windows: token ids, each row read from a cold start.
        progress: told of passes over a window.
        checkpoint: what a former run has left, and where this one leaves what it has found.
    """
    shape = (len(plans), len(windows))
    new = {name: np.zeros(shape) for name in ("kl", "active")}
    new |= {"through": np.array(0), "plans": np.array([_values(plan) for plan in plans])}
    kept = checkpoint.load("evidence") or {}
    same = {name: each.shape for name, each in kept.items()} == {n: e.shape for n, e in new.items()}
    state = kept if same and np.array_equal(kept["plans"], new["plans"]) else new
    kl, active, through = state["kl"], state["active"], state["through"]
    try:
        for window, ids in enumerate(windows):
            if window < through:
                continue
            tried = _tried(kl[:, 0])
            done, steps = window * (1 + tried), len(windows) * (1 + tried)
            model.set_plan(None)
            dense = np.concatenate([part.copy() for part in _logits(model, ids)])
            normaliser = log_normaliser(dense)
            progress("evidence", done := done + 1, steps)
            for row, plan in enumerate(plans[:tried]):
                model.set_plan(plan)
                start = 0
                for other in _logits(model, ids):
                    part = slice(start, start := start + len(other))
                    found = kl_divergence(
                        dense[part], normaliser[part], other, log_normaliser(other)
                    )
                    kl[row, window] += float(found.sum()) / len(ids)
                    active[row, window] += model.active_weight_fraction * len(other) / len(ids)
                progress("evidence", done := done + 1, steps)
                if window == 0 and kl[row, 0] > ENOUGH:
                    break
            so_far = {**state, "through": np.array(window + 1)}
            checkpoint.offer("evidence", partial(dict, so_far), last=True)
    finally:
        model.set_plan(None)
        model.kv_cache.trim(0)
    rows = range(_tried(kl[:, 0]))
    return [
        Evidence(plans[row].sparsity, float(active[row].mean()), float(kl[row].mean()))
        for row in rows
    ]


def _tried(first: npt.NDArray[np.float64]) -> int:
    """How many plans are worth a look, from their KL on the first window, 0 where unknown."""
    beyond = np.flatnonzero(first > ENOUGH)
    return int(beyond[0]) + 1 if len(beyond) else len(first)


def _values(plan: SparsityPlan) -> float:
    """A number that two plans of one family have in common only if they are the same."""
    return sum(rule.value for layer in plan.layers for rule in layer.values())


def _logits(model: Model, ids: npt.NDArray[np.int64]) -> Iterator[Floats]:
    model.kv_cache.trim(0)
    return model.read_all_logits(ids.tolist(), sparse=True)
