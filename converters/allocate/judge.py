"""Judge: what a plan changes of pieces of text, by the KL divergence to the dense model.

What the dense model predicts is kept, of each position its likeliest tokens; the rest of the
vocabulary counts as one token, which understates the divergence a little and saves its memory. The
divergence of a search has to be cheap and comparable between plans; what is reported of a plan is
measured by evidence.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from converters.calibration.histograms import Array
from converters.calibration.windows import Windows
from sparity_edge.logits import log_normaliser
from sparity_edge.model.model import Model
from sparity_edge.plans.plan import SparsityPlan

LIKELIEST = 512  # tokens of a position that are told apart
SMALLEST = 1e-12  # likelihood of all the others


@dataclass(frozen=True)
class Judged:
    """A plan over some pieces of text."""

    kl: float  # nats a position
    active: float  # active weight fraction


@dataclass(frozen=True)
class _Dense:
    """What the dense model predicts behind each position of a piece of text."""

    tokens: Array  # (positions, LIKELIEST)
    logs: Array  # of their likelihoods; the last column: of all other tokens together


class Judge:
    """Measures plans on pieces of one text.

    Args:
        model: whose KV cache is emptied and whose plan is changed.
        text: token ids (places, positions), each place read from a cold start.
    """

    def __init__(self, model: Model, text: Windows) -> None:
        self._model, self._text = model, text
        self._dense: dict[int, _Dense] = {}

    def __call__(self, plan: SparsityPlan, places: Sequence[int]) -> Judged:
        """Measure a plan, all positions but the first ones of a place being sparse."""
        dense = [self._of_dense(place) for place in places]
        self._model.set_plan(plan)
        kl, active, positions = 0.0, 0.0, 0
        for place, expected in zip(places, dense, strict=True):
            found, at = self._read(place, expected.tokens)
            kl += float(np.sum(np.exp(expected.logs) * (expected.logs - found)))
            active += at * len(found)
            positions += len(found)
        return Judged(max(kl, 0.0) / positions, active / positions)

    def _of_dense(self, place: int) -> _Dense:
        if place not in self._dense:
            self._model.set_plan(None)
            self._model.kv_cache.trim(0)
            tokens, logs = [], []
            for logits in self._model.read_all_logits(self._text[place].tolist()):
                count = min(LIKELIEST, logits.shape[1])
                best = np.argpartition(-logits, count - 1, axis=1)[:, :count].astype(np.int32)
                best.sort(axis=1)
                tokens.append(best)
                logs.append(_logs(logits, best))
            self._dense[place] = _Dense(np.concatenate(tokens), np.concatenate(logs))
        return self._dense[place]

    def _read(self, place: int, tokens: Array) -> tuple[Array, float]:
        """Logs of likelihoods at a place, and the active weight fraction there."""
        self._model.kv_cache.trim(0)
        logs, active, start = [], 0.0, 0
        for logits in self._model.read_all_logits(self._text[place].tolist(), sparse=True):
            stop = start + len(logits)
            logs.append(_logs(logits, tokens[start:stop]))
            active += self._model.active_weight_fraction * len(logits)
            start = stop
        return np.concatenate(logs), active / start


def _logs(logits: Array, tokens: Array) -> Array:
    """Logs of the likelihoods of some tokens, (positions, tokens + 1), the last of all others."""
    chosen = np.take_along_axis(logits, tokens, axis=1).astype(np.float64)
    chosen -= log_normaliser(logits)[:, None]
    others = np.maximum(1 - np.exp(chosen).sum(axis=1), SMALLEST)
    return np.concatenate([chosen, np.log(others)[:, None]], axis=1)
