"""Timed answers, and the bytes that a token has to read.

An answer is timed where a user sees it: from the call of Generator.stream, sampling included, to
each token.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparity_edge.parameters import SamplingParams

if TYPE_CHECKING:
    from sparity_edge.generate import Generator
    from sparity_edge.model import Model


@dataclass(frozen=True)
class Answer:
    """What one answer took."""

    first: float  # seconds to the first token
    later: tuple[float, ...]  # seconds of each further one
    active: float  # active weight fraction, mean over the further ones; of the prompt without any


def answer(generator: Generator, ids: Sequence[int], later: int, settle: int = 0) -> Answer:
    """Time one answer, sampled as by default and with the same seed each time.

    Args:
        generator: whose cache may hold a beginning of `ids`.
        ids: the prompt.
        later: how many tokens to time after the first.
        settle: how many more to leave out in front of these: no plan thins the first positions.
    """
    params = SamplingParams(max_tokens=1 + settle + later, ignore_eos=True, seed=1)
    marks, steps = [time.perf_counter()], []
    for step in generator.stream(ids, params):
        marks.append(time.perf_counter())
        steps.append(step.stats.active_weight_fraction)  # the mean of all tokens but the first
    gaps = [after - before for before, after in itertools.pairwise(marks)]
    active = generator.active_weight_fraction
    if later:
        active = ((settle + later) * steps[-1] - settle * steps[settle]) / later
    return Answer(gaps[0], tuple(gaps[1 + settle :]), active)


def bytes_of_a_token(model: Model, depth: float, active: float = 1.0) -> int:
    """What decoding has to read: weights but the embedding's other rows, and the cache.

    Args:
        model: what decodes.
        depth: positions in the cache, on average.
        active: active weight fraction of the decoder blocks.
    """
    head = model.decoder.lm_head.layout.nbytes
    return int(model.block_bytes * active + head + depth * model.cache.bytes_per_token)
