"""Timed sequences, and the bytes that a token has to read.

A sequence is timed where a user sees it: from the call of Generator.stream, sampling included, to
each token. Knows nothing of cases and rounds.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.sampler import Sampler
from sparity_edge.measure.rounds import timed

if TYPE_CHECKING:
    from sparity_edge.generation.generator import Generator
    from sparity_edge.generation.results import Step
    from sparity_edge.model.model import Model

PASSES = 5  # over several tokens, of which the median is taken


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
        steps = _token_by_token(generator, ids, tokens)
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


def time_pass(generator: Generator, tokens: int, passes: int = PASSES) -> float:
    """Median seconds of a pass over some tokens behind the context, read as guesses are checked.

    Args:
        generator: whose KV cache is as it was afterwards.
        tokens: up to 16; 1: as decoding reads it.
        passes: how many are timed, after one that is not.
    """
    model, wanted = generator.loaded.model, None
    kept, ids = len(model.kv_cache), [5 + 7 * index for index in range(tokens)]
    if model.screen is not None:
        wanted = Sampler(_params(1, 0), model.config.vocab_size).wanted(ids)

    def run() -> None:
        model.kv_cache.trim(kept)
        if tokens == 1:
            model.read(ids, True, wanted=wanted)
        elif model.reads_few_alike(tokens):
            caches = [model.kv_cache] * tokens
            model.read_rows(ids, caches, None if wanted is None else [wanted] * tokens)
        else:
            next(model.read_all_logits(ids, True))

    run()
    seconds = statistics.median(timed(run) for _ in range(passes))
    model.kv_cache.trim(kept)
    return seconds


def _token_by_token(generator: Generator, ids: Sequence[int], tokens: int) -> Iterator[Step]:
    """Steps of a sequence that is decoded without speculation, whose text it would depend on."""
    former, generator.speculation = generator.speculation, False
    try:
        yield from generator.stream(ids, _params(tokens, 0))
    finally:
        generator.speculation = former


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
