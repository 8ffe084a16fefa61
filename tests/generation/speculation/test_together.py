"""Sequences side by side with guesses: texts, figures and KV caches of each are those alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eager_pace import EagerPace

from sparity_edge import Generator, OptionError
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.results import Step
from sparity_edge.generation.sequence import sequence_of
from sparity_edge.generation.speculation import decode
from sparity_edge.generation.speculation.decode import speculation_of
from sparity_edge.generation.speculation.draft import Draft
from sparity_edge.generation.speculation.pace import Pace
from sparity_edge.generation.speculation.speculation import Speculation
from sparity_edge.generation.speculation.together import Together
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.model.kv_cache import KVCache

PROMPTS = [[5, 9, 5, 9], [7], [11, 3, 4, 8, 20, 6, 1], [30, 31]]
PARAMS = [
    SamplingParams(temperature=0, max_tokens=24, ignore_eos=True),
    SamplingParams(seed=5, max_tokens=17, ignore_eos=True),
    SamplingParams(seed=6, temperature=1.3, max_tokens=24, top_logprobs=2, ignore_eos=True),
    SamplingParams(temperature=0, repetition_penalty=1.3, max_tokens=9, ignore_eos=True),
]


class Half:
    """A source that knows what follows, and is wrong about some of it."""

    answers: tuple[list[int], ...] = ()

    def __init__(self, ids: Sequence[int]) -> None:
        prompt = list(ids)[:-1]
        number = PROMPTS.index(prompt)
        self._answer = self.answers[number] if self.answers else []
        self._told, self._random = 1, np.random.RandomState(number)

    def draft(self, most: int) -> Draft:
        guesses = list(self._answer[self._told :][: self._random.randint(most + 1)])
        if guesses and self._random.rand() < 0.6:
            guesses[self._random.randint(len(guesses))] = int(self._random.randint(200))
        return Draft(guesses, list(self._random.rand(len(guesses))))

    def follow(self, _token: int) -> None:
        self._told += 1


@pytest.fixture(scope="module", params=["int4", "f32"])
def generator(
    request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]
) -> Iterator[Generator]:
    options: dict[str, Any] = {"dtype": request.param, "cache_dtype": "int8", "threads": 2}
    with Generator.load(checkpoint("llama_gqa"), **options) as made:
        yield made


@pytest.fixture(autouse=True)
def kernels_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is compiled at once."""
    monkeypatch.setattr(ThreadedMachine, "batches_ready", lambda _: True)
    monkeypatch.setattr(decode, "NGrams", Half)


def begun(generator: Generator, number: int) -> tuple[list[Step], Speculation]:
    """The first step of a prompt, and what decodes the rest."""
    loaded, cache = generator.loaded, generator.loaded.model.new_kv_cache()
    sequence = sequence_of(loaded, PROMPTS[number], PARAMS[number])
    choice = sequence.choose(loaded.model.read(sequence.ids, cache=cache))
    sequence.meter.add(0.0, 1.0, {})
    return [sequence.take(*choice)], speculation_of(loaded, sequence, cache)


def decoded(generator: Generator, numbers: Sequence[int]) -> list[tuple[list[Step], KVCache]]:
    """The steps of prompts that are decoded side by side, and the KV caches behind them."""
    together, found = Together(generator.loaded), [begun(generator, each) for each in numbers]
    while running := [each for each in found if each[1].sequence.finish_reason is None]:
        for each, steps in zip(running, together.steps([each[1] for each in running]), strict=True):
            each[0].extend(steps)
    return [(steps, speculation.cache) for steps, speculation in found]


def seen(steps: Sequence[Step]) -> list[tuple[Any, ...]]:
    return [
        (step.text, step.token_id, step.logprob, step.finish_reason, dict(step.top_logprobs))
        for step in steps
    ]


def test_everybody_gets_what_they_get_alone(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator.speculation = False
    alone = [decoded(generator, [number])[0] for number in range(len(PROMPTS))]
    generator.speculation, generator.loaded.pace = True, EagerPace()
    monkeypatch.setattr(Half, "answers", [[each.token_id for each in own] for own, _ in alone])
    together = decoded(generator, range(len(PROMPTS)))
    generator.loaded.pace = Pace()
    for (mine, cache), (yours, other) in zip(alone, together, strict=True):
        assert seen(mine) == seen(yours)
        assert cache.ids == other.ids
        for kept, read in zip(cache.keys, other.keys, strict=True):
            np.testing.assert_array_equal(kept[:, : len(cache)], read[:, : len(cache)])
        stats = yours[-1].stats
        assert 0 < stats.accepted_tokens < stats.drafted_tokens
        assert stats.decode_passes < len(yours) - 1
        assert mine[-1].stats.drafted_tokens == 0


def test_a_batch_of_prompts(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """More prompts than one pass is over: they join and leave while others are under way."""
    monkeypatch.undo()
    monkeypatch.setattr(ThreadedMachine, "batches_ready", lambda _: True)
    prompts = [[5 + number, 7, 9 + number % 7] * 2 for number in range(11)]
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    answers = []
    for speculation in (False, True):
        generator.speculation, generator.loaded.pace = speculation, EagerPace()
        answers.append(generator.generate_batch(prompts, params))
    generator.loaded.pace = Pace()
    assert [each.token_ids for each in answers[0]] == [each.token_ids for each in answers[1]]
    assert sum(each.stats.accepted_tokens for each in answers[1]) > 0
    assert all(each.stats.drafted_tokens == 0 for each in answers[0])


def test_a_source_that_fails_ends_its_own_sequence_alone(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Half, "answers", ())
    ((alone, _),) = decoded(generator, [0])
    found = [begun(generator, each) for each in (0, 1)]

    def fails(_most: int) -> Draft:
        raise OptionError("it cannot be followed")

    monkeypatch.setattr(found[1][1], "free_draft", fails)
    first, second = Together(generator.loaded).steps([each[1] for each in found])
    assert seen([*found[0][0], *first]) == seen(alone[: len(first) + 1])
    assert first
    assert not second
    assert (found[0][1].error, str(found[1][1].error)) == (None, "it cannot be followed")
