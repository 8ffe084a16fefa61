"""Scores of continuations against whole passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sparity_edge import ContextError, Generator, OptionError
from sparity_edge.quality.scoring import encode_pair, score


@pytest.fixture(scope="module")
def generator(checkpoint: Callable[[str], Path]) -> Iterator[Generator]:
    with Generator.load(checkpoint("llama_untied"), dtype="f32", threads=2) as loaded:
        yield loaded


def whole(generator: Generator, context: list[int], ids: list[int]) -> tuple[float, bool]:
    """Log-likelihoods from one cold pass over everything."""
    every = [*context, *ids]
    logits = np.concatenate([np.array(part, dtype=np.float64) for part in generator.logits(every)])
    rows = logits[len(context) - 1 : -1]
    likely = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return sum(likely[range(len(ids)), ids]), bool((rows.argmax(axis=1) == ids).all())


@pytest.mark.parametrize("context", [[5], [1, 20, 30], [1, *range(20, 50)]])
def test_scores_equal_whole_passes(generator: Generator, context: list[int]) -> None:
    continuations = [[40], [41, 42, 43], [41, 42, 44], list(range(60, 90))]
    results = score(generator, context, continuations)
    for result, ids in zip(results, continuations):
        logprob, greedy = whole(generator, context, ids)
        assert result.logprob == pytest.approx(logprob, abs=1e-3)
        assert (result.greedy, result.tokens) == (greedy, len(ids))
        assert result.active_weight_fraction == 1


def test_the_most_likely_continuation_is_greedy(generator: Generator) -> None:
    context = [1, 30, 31]
    answer: list[int] = []
    for _ in range(4):
        logits = np.concatenate([np.array(part) for part in generator.logits(context + answer)])
        answer.append(int(logits[-1].argmax()))
    assert [each.greedy for each in score(generator, context, [answer, [*answer[:-1], 2]])] == [
        True,
        answer[-1] == 2,
    ]


def test_what_cannot_be_scored(generator: Generator) -> None:
    for context, continuations in (([], [[1]]), ([1], [[]]), ([1], [[10**6]])):
        with pytest.raises(OptionError):
            score(generator, context, continuations)
    with pytest.raises(ContextError):
        score(generator, [1] * generator.max_context, [[1, 2]])


def test_pairs_are_tokenised_together(generator: Generator) -> None:
    encode = generator.tokenizer.encode
    before, behind = encode_pair(generator.tokenizer, "The little model ", "reads")
    assert before == encode("The little model")
    assert [*before, *behind] == encode("The little model reads")
    with pytest.raises(OptionError, match="empty"):
        encode_pair(generator.tokenizer, "The", "")
