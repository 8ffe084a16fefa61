"""Log-likelihood of continuations of a text, the measure of multiple-choice tasks.

The context is read once and kept in the KV cache while one continuation after another is read
behind it. Text becomes ids as in EleutherAI's lm-evaluation-harness, so that results can be
compared: context and continuation are tokenised together, and a context does not end in spaces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparity_edge.errors import OptionError
from sparity_edge.logits import log_normaliser, target_logits

if TYPE_CHECKING:
    from sparity_edge.arrays import Floats
    from sparity_edge.generation.generator import Generator
    from sparity_edge.model.model import Model
    from sparity_edge.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Score:
    """How likely one continuation is."""

    logprob: float  # natural logarithm, summed over its tokens
    greedy: bool  # whether each token is the most likely one
    tokens: int
    active_weight_fraction: float  # mean over the tokens read to score it, context left out


def score(
    generator: Generator, context: Sequence[int], continuations: Sequence[Sequence[int]]
) -> list[Score]:
    """Score continuations of one context; the KV cache is emptied first.

    Args:
        generator: loaded with `sparse_prefill=True` if prefill is to be sparse.
        context: token ids, at least one.
        continuations: token ids, at least one each.

    Raises:
        ContextError: context and continuation do not fit.
        OptionError: there are no ids, or one is no token id.
    """
    context = generator.encode(context)
    continuations = [generator.encode(ids) for ids in continuations]
    model, sparse = generator.loaded.model, generator.sparse_prefill
    with generator.loaded.busy:
        generator.new_call()
        model.cache.trim(0)
        # A copy, for the arrays of a pass may be used again; (1, vocab_size)
        first = model.read(context, sparse)[None].copy()
        before = model.active_weight_fraction
        return [_score(model, sparse, len(context), first, before, ids) for ids in continuations]


def _score(
    model: Model, sparse: bool, start: int, first: Floats, before: float, ids: Sequence[int]
) -> Score:
    model.cache.trim(start)
    logprob, greedy = _likelihood(first, ids[:1])
    position, active = 1, 0.0
    for logits in model.read_all_logits(ids[:-1], sparse) if ids[:-1] else ():
        end = position + len(logits)
        more, likely = _likelihood(logits, ids[position:end])
        logprob, greedy = logprob + more, greedy and likely
        active += len(logits) * model.active_weight_fraction
        position = end
    read = len(ids) - 1  # the last token need not be read; a single one costs the context's pass
    return Score(logprob, greedy, len(ids), active / read if read else before)


def _likelihood(logits: Floats, targets: Sequence[int]) -> tuple[float, bool]:
    """Log-likelihood of targets (tokens,), and whether each is the most likely."""
    logprob = float((target_logits(logits, targets) - log_normaliser(logits)).sum())
    return logprob, bool((logits.argmax(axis=1) == targets).all())


def encode_pair(
    tokenizer: Tokenizer, context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """Ids of a context and of the continuation as it stands behind it.

    Raises:
        OptionError: either has no tokens.
    """
    stripped = context.rstrip()
    before = tokenizer.encode(stripped)
    whole = tokenizer.encode(context + continuation)
    if not before or len(whole) <= len(before):
        raise OptionError("A context or a continuation is empty; give at least one word.")
    return before, whole[len(before) :]
