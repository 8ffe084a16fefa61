"""Loops: a passage that repeats itself word for word is noticed, and other texts are not."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import chain, cycle, islice, repeat

import pytest

from sparity_edge import Generator, SamplingParams
from sparity_edge.generation.loops import LONGEST, REPEATED, TIMES, LoopDetector


def looks(ids: Iterable[int]) -> int | None:
    """After how many tokens a loop is seen."""
    detector = LoopDetector()
    return next((number for number, token in enumerate(ids, 1) if detector.push(token)), None)


@pytest.mark.parametrize("period", [1, 2, 7, 31, 32, 33, 100, LONGEST])
def test_a_passage_over_and_over_is_a_loop(period: int) -> None:
    passage = range(1000, 1000 + period)
    before = [5, 6, 7]
    expected = len(before) + period + max((TIMES - 1) * period, REPEATED)
    assert looks(chain(before, islice(cycle(passage), 10 * LONGEST))) == expected


def test_texts_that_end_or_change_are_none() -> None:
    dice = random.Random(0)
    assert looks(dice.randrange(50) for _ in range(5000)) is None
    assert looks(islice(cycle(range(LONGEST + 1)), 5 * LONGEST)) is None  # too long to be seen
    assert looks([*repeat(1, REPEATED), 2, *repeat(1, REPEATED)]) is None
    refrain = list(range(40))
    assert looks([*refrain, *refrain]) is None
    counted = chain.from_iterable([number, *range(500, 520)] for number in range(100))
    assert looks(counted) is None  # "1. the same, 2. the same": not word for word


@pytest.fixture
def generator(checkpoint) -> Iterable[Generator]:  # type: ignore[no-untyped-def]
    with Generator.load(checkpoint("llama_small"), dtype="f32", threads=1) as loaded:
        yield loaded


def test_a_sequence_ends_in_a_loop_where_that_is_wanted(generator: Generator) -> None:
    bias = {7: 10_000.0}
    for params in (
        SamplingParams(stop_loops=True, max_tokens=100, logit_bias=bias, ignore_eos=True),
        SamplingParams(max_tokens=100, logit_bias=bias, ignore_eos=True),
    ):
        one = generator.generate([1, 2, 3], params)
        (many,) = generator.generate_batch([[1, 2, 3]], params)
        expected = (REPEATED + 1, "loop") if params.stop_loops else (100, "length")
        assert (len(one.token_ids), one.finish_reason) == expected
        assert (len(many.token_ids), many.finish_reason) == expected
