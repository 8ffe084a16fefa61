"""From a sequence that has not begun to its steps, with the model's own KV cache.

The lock is held while the model works and not while a step is looked at.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from sparity_edge.errors import SparityError
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.generation.results import Step
from sparity_edge.generation.sequence import DecodingSequence
from sparity_edge.generation.speculation.draft import DraftSource
from sparity_edge.generation.speculation.draft_model import ModelGuesses
from sparity_edge.generation.speculation.forced import ForcedTokens
from sparity_edge.generation.speculation.ngrams import NGrams
from sparity_edge.generation.speculation.pace import Pace
from sparity_edge.generation.speculation.speculation import Speculation
from sparity_edge.model.kv_cache import KVCache


def steps_of(
    loaded: LoadedModel, sequence: DecodingSequence, demand_latest: Callable[[], None]
) -> Iterator[Step]:
    """Decode one sequence, a step a token.

    Args:
        loaded: the model.
        sequence: one that has not begun.
        demand_latest: raises where another call has taken the KV cache over.
    """
    with loaded.busy:
        demand_latest()
        step = _first_step(loaded, sequence)
        speculation = speculation_of(loaded, sequence)
    yield step
    # Not before the first token is there; where another call has begun, nothing is kept.
    with loaded.busy, contextlib.suppress(SparityError):
        demand_latest()
        loaded.keep(loaded.model.kv_cache)
    while sequence.finish_reason is None:
        with loaded.busy:
            demand_latest()
            steps = speculation.steps()
        yield from _each(loaded, sequence, steps, demand_latest)


def _first_step(loaded: LoadedModel, sequence: DecodingSequence) -> Step:
    """Read the prompt and take the token that is chosen after it."""
    model, started = loaded.model, time.perf_counter()
    model.kv_cache.reuse(sequence.ids)
    loaded.take_over(model.kv_cache, sequence.ids)
    sequence.meter.cached = len(model.kv_cache)
    ids = sequence.ids[len(model.kv_cache) :]
    wanted = None if model.screen is None else sequence.wanted()
    logits = model.read(ids, loaded.sparse_prefill, wanted=wanted)
    choice = sequence.choose(logits, model.exact_ids)
    seconds = time.perf_counter() - started
    sequence.meter.add(seconds, model.active_weight_fraction, model.densities)
    return sequence.take(*choice)


def _each(
    loaded: LoadedModel,
    sequence: DecodingSequence,
    steps: Sequence[Step],
    demand_latest: Callable[[], None],
) -> Iterator[Step]:
    """The steps of one pass; of those that nobody takes the KV cache keeps nothing."""
    before = len(sequence.ids) - len(steps)
    for index, step in enumerate(steps):
        if index:
            demand_latest()
        try:
            yield step
        except GeneratorExit:
            # Whoever collects garbage may hold the lock.
            if len(steps) > 1 and loaded.busy.acquire(blocking=False):
                with contextlib.suppress(SparityError):
                    demand_latest()
                    loaded.model.kv_cache.trim(before + index)
                loaded.busy.release()
            raise


def speculation_of(
    loaded: LoadedModel, sequence: DecodingSequence, cache: KVCache | None = None
) -> Speculation:
    """The passes of a sequence whose first token was chosen, with all that guesses its tokens.

    Args:
        loaded: the model.
        sequence: of which all but the latest token was read.
        cache: that holds it; None: the model's own.
    """
    sources: list[tuple[DraftSource, Pace]] = []
    if sequence.constrained:
        sources.append((ForcedTokens(sequence), loaded.pace))
    if loaded.speculation:
        sources.append((NGrams(sequence.ids), loaded.pace))
        if loaded.draft_model is not None:
            pace = loaded.draft_model.pace(loaded.pace.prices)
            sources.append((ModelGuesses(loaded.draft_model, sequence.ids, pace), pace))
    return Speculation(loaded.model, sequence, sources, loaded.pace, cache)
