"""What a plan gains: decoding with it against dense decoding of the same model, interleaved.

Sequences are sampled behind the same piece of text on both sides, as a user has them. A machine
that drifts does so for both: the figure is the median of the ratios of rounds. Knows nothing of
how a model is found and of what is done with the figure.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from sparity_edge.measure.context import text_ids
from sparity_edge.measure.decoding import time_sequence
from sparity_edge.measure.rounds import counted, interleaved
from sparity_edge.progress import Progress, silent

if TYPE_CHECKING:
    from sparity_edge.generation.generator import Generator

MEASURING = "Measuring what sparsity gains here (once)"
PROMPT = 48  # tokens of text that sequences begin behind
ROUNDS = 7
ROUND_SECONDS = 0.25  # of decoding by one side, as far as MOST and FEWEST let it
FEWEST, MOST = 4, 64  # tokens of one side in a round
SETTLE = 2  # tokens in front that are not timed: caches still hold the other side's weights


@dataclass(frozen=True)
class Gain:
    """Decoding speeds, tokens a second, and their ratio."""

    ratio: float  # with the plan over dense; above 1 the plan is faster
    dense: float
    sparse: float


def measure_gain(dense: Generator, sparse: Generator, progress: Progress = silent) -> Gain:
    """Decode with both in turn.

    Args:
        dense: follows no plan.
        sparse: follows one; of the same model.
        progress: told of rounds.
    """
    seconds = token_seconds({"dense": dense, "sparse": sparse}, progress)
    ratios = [a / b for a, b in zip(seconds["dense"], seconds["sparse"], strict=True)]
    before, after = (statistics.median(seconds[name]) for name in ("dense", "sparse"))
    return Gain(statistics.median(ratios), 1 / before, 1 / after)


def measure_apart(dense: Mapping[str, list[float]], sparse: Mapping[str, list[float]]) -> Gain:
    """The gain from `token_seconds` of sides that memory did not hold together.

    Args:
        dense, sparse: what `token_seconds` gave of the one and the other.
    """
    (one,), (other,) = dense.values(), sparse.values()
    before, after = statistics.median(one), statistics.median(other)
    return Gain(before / after, 1 / before, 1 / after)


def token_seconds(
    sides: Mapping[str, Generator], progress: Progress = silent
) -> dict[str, list[float]]:
    """Median seconds of a decoded token of each side, by round; the sides take turns.

    Args:
        sides: compiled generators; their KV caches are emptied.
        progress: told of rounds.
    """
    ids = {name: text_ids(each, PROMPT) for name, each in sides.items()}

    def seconds(name: str, tokens: int) -> float:
        return statistics.median(time_sequence(sides[name], ids[name], tokens, SETTLE).later)

    first = [seconds(name, FEWEST) for name in sides]  # records programs, too
    tokens = max(FEWEST, min(MOST, int(ROUND_SECONDS / max(first))))
    cases = {name: partial(seconds, name, tokens) for name in sides}
    told = counted(cases, len(sides) * (ROUNDS + 1), MEASURING, progress)
    found: dict[str, list[float]] = {name: [] for name in sides}
    for samples in interleaved(told, ROUNDS):
        for name, value in samples.items():
            found[name].append(value)
    for each in sides.values():
        each.loaded.model.kv_cache.trim(0)
    return found
