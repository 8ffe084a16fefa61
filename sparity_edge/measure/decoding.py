"""Timed sequences, and the bytes that a token has to read.

A sequence is timed where a user sees it: from the call of Generator.stream, sampling included, to
each token. Knows nothing of cases and rounds.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparity_edge.generation.params import SamplingParams

if TYPE_CHECKING:
    from sparity_edge.generation.generator import Generator
    from sparity_edge.generation.results import Step
    from sparity_edge.model.model import Model


@dataclass(frozen=True)
class Timing:
    """What a sequence took, or several that were decoded together."""

    first: float  # seconds to the first token
    later: tuple[float, ...]  # seconds of each further one
    active: float  # active weight fraction, mean over the further ones; of the prompt without any


def time_sequence(
    generator: Generator, ids: Sequence[int], later: int, settle: int = 0, together: int = 1
) -> Timing:
    """Time one sequence, sampled with the default parameters and a fixed seed.

    Args:
        generator: whose KV cache may hold a beginning of `ids`.
        ids: the prompt.
        later: how many tokens to time after the first.
        settle: how many more to leave out in front of these: no plan applies to the first
            positions, and passes over several sequences are recorded there.
        together: how many sequences to decode together. They differ in the last token of their
            prompts and in their seeds, so that what they have in common is the context.
    """
    tokens = 1 + settle + later
    if together == 1:
        steps = generator.stream(ids, _params(tokens, 0))
    else:
        steps = _first_of_several(generator, ids, tokens, together)
    marks, fractions = [time.perf_counter()], []
    for step in steps:
        marks.append(time.perf_counter())
        fractions.append(step.stats.active_weight_fraction)  # the mean of all but the first
    gaps = [after - before for before, after in itertools.pairwise(marks)]
    active = generator.active_weight_fraction
    if later:
        active = ((settle + later) * fractions[-1] - settle * fractions[settle]) / later
    return Timing(gaps[0], tuple(gaps[1 + settle :]), active)


def _first_of_several(
    generator: Generator, ids: Sequence[int], tokens: int, together: int
) -> Iterator[Step]:
    """Steps of the first sequence: each comes when a token of every sequence is there."""
    vocab = generator.config.vocab_size
    prompts = [[*ids[:-1], (ids[-1] + 97 * number) % vocab] for number in range(together)]
    params = [_params(tokens, number) for number in range(together)]
    return (step for number, step in generator.stream_batch(prompts, params) if number == 0)


def _params(tokens: int, seed: int) -> SamplingParams:
    return SamplingParams(max_tokens=tokens, ignore_eos=True, seed=seed)


def bytes_of_a_token(model: Model, depth: float, active: float | None = None) -> int:
    """What decoding has to read: weights but the embedding's other rows, and the KV cache.

    Args:
        model: what decodes.
        depth: positions of the KV cache in use, on average; summed over sequences.
        active: active weight fraction of the decoder layers; None: all that is stored is read.
    """
    head = model.head_bytes
    layers = model.layer_bytes if active is None else model.dense_layer_bytes * active
    return int(layers + head + depth * model.kv_cache.bytes_per_token)
