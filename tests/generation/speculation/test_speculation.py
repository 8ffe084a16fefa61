"""Speculation: the text, its figures and the KV cache are those of decoding token by token."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_cases
from eager_pace import EagerPace

from sparity_edge import Generator
from sparity_edge.errors import OptionError, SparityError
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.results import Step
from sparity_edge.generation.speculation import decode
from sparity_edge.generation.speculation.draft import Draft
from sparity_edge.generation.speculation.pace import Pace
from sparity_edge.kernels.program.machine import ThreadedMachine


class Wild:
    """A source whose guesses are sometimes right: some tokens of what is known to follow."""

    answer: Sequence[int] = ()

    def __init__(self, ids: Sequence[int]) -> None:
        self._told = 1  # the first token came of the prompt
        self._random = np.random.RandomState(len(ids))

    def draft(self, most: int) -> Draft:
        right = list(self.answer[self._told :][:most])
        guesses = [*right, *[3] * (most - len(right))]
        if self._random.rand() < 0.7:
            guesses[self._random.randint(most)] = int(self._random.randint(200))
        count = self._random.randint(most + 1)
        return Draft(guesses[:count], [1.0] * count)

    def follow(self, _token: int) -> None:
        self._told += 1


@pytest.fixture(autouse=True)
def kernels_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is compiled at once."""
    monkeypatch.setattr(ThreadedMachine, "batches_ready", lambda _: True)


@pytest.fixture(scope="module", params=[1, 2, 5])
def generator(
    request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]
) -> Iterator[Generator]:
    """A tiny model of K and V in bytes, whose cache grows while it answers."""
    options: dict[str, Any] = {"dtype": "int4", "cache_dtype": "int8", "threads": request.param}
    with Generator.load(checkpoint("llama_gqa"), **options) as made:
        yield made


def both(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, prompt: Any, params: Any, **options: Any
) -> tuple[list[Step], list[Step]]:
    """The steps of an answer token by token, and of the same with wild guesses."""
    cache = generator.loaded.model.kv_cache
    found, kept = [], []
    for wild in (False, True):
        generator.speculation = wild
        cache.trim(0)
        found.append(list(generator.stream(prompt, params, **options)))
        kept.append((list(cache.ids), [each[:, : len(cache)].copy() for each in cache.keys]))
        Wild.answer = [step.token_id for step in found[0]]
        monkeypatch.setattr(decode, "NGrams", Wild)
        generator.loaded.pace = EagerPace()
    assert kept[0][0] == kept[1][0]
    for mine, yours in zip(kept[0][1], kept[1][1], strict=True):
        np.testing.assert_array_equal(mine, yours)
    generator.loaded.pace = Pace()
    return found[0], found[1]


def seen(steps: Sequence[Step]) -> list[tuple[Any, ...]]:
    """What a user has of an answer, times and passes left aside."""
    return [
        (step.text, step.token_id, step.logprob, step.finish_reason, dict(step.top_logprobs))
        for step in steps
    ]


WAYS: tuple[dict[str, Any], ...] = (
    {"temperature": 0},
    {"seed": 5},
    {"seed": 6, "temperature": 1.3, "top_k": 0, "top_p": 1, "logprobs": True, "top_logprobs": 3},
    {"temperature": 0, "repetition_penalty": 1.3, "presence_penalty": 0.5},
    {"seed": 7, "frequency_penalty": 0.4, "min_p": 0.02, "logit_bias": {9: 2.0}},
    {"seed": 8, "stop": ("e", "an"), "ignore_eos": False},
    {"temperature": 0, "stop_loops": True},
)


@pytest.mark.parametrize("way", WAYS)
def test_an_answer_is_the_same(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]
) -> None:
    params = SamplingParams(max_tokens=40, **{"ignore_eos": True, **way})
    plain, drafted = both(generator, monkeypatch, [5, 9, 5, 9, 5], params)
    assert seen(drafted) == seen(plain)
    stats = drafted[-1].stats
    assert plain[-1].stats.drafted_tokens == 0
    if len(plain) == 40:
        assert 0 < stats.accepted_tokens < stats.drafted_tokens
        assert stats.decode_passes < 39
        assert stats.tokens_per_pass == pytest.approx(39 / stats.decode_passes)
        assert plain[-1].stats.tokens_per_pass == 1


def test_many_greedy_answers_are_the_same(checkpoint: Callable[[str], Path]) -> None:
    """Guesses by passages that stood there before, read wherever there are any."""
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    answers: list[Any] = []
    drafted = 0
    with Generator.load(checkpoint("llama_gqa"), dtype="int8", threads=2) as generator:
        for speculation, number in itertools.product((False, True), range(60)):
            generator.speculation = speculation
            generator.loaded.pace = EagerPace()
            completion = generator.generate([5 + number, 7, 9 + number % 7] * 2, params)
            answers.append((completion.text, completion.token_ids))
            drafted += completion.stats.drafted_tokens
    assert answers[:60] == answers[60:]
    assert drafted > 200


def test_processors_see_what_they_see_token_by_token(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    def ban_the_latest(ids: Sequence[int], logits: Any) -> Any:
        calls.append((tuple(ids), logits.tobytes()))
        logits[ids[-1]] = -np.inf
        return logits

    params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
    options = {"logits_processors": [ban_the_latest]}
    plain, drafted = both(generator, monkeypatch, [5, 9, 5], params, **options)
    assert seen(drafted) == seen(plain)
    assert calls[:20] == calls[20:]


def test_a_processor_that_fails_does_so_after_the_same_tokens(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_in_the_end(ids: Sequence[int], logits: Any) -> Any:
        return logits if len(ids) < 14 else logits * np.nan

    for wild in (False, True):
        monkeypatch.setattr(decode, "NGrams", Wild)
        generator.speculation, generator.loaded.pace = wild, EagerPace()
        params = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
        taken: list[int] = []
        steps = generator.stream([5, 9], params, logits_processors=[fail_in_the_end])
        with pytest.raises(OptionError, match="NaN"):
            taken.extend(step.token_id for step in steps)
        if not wild:
            Wild.answer = taken
        assert taken == list(Wild.answer)
        assert len(taken) == 12
        assert generator.loaded.model.kv_cache.ids == [5, 9, *taken]


def test_who_stops_in_the_middle_of_a_pass_leaves_no_more_than_was_seen(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    plain, _ = both(generator, monkeypatch, [5, 9], params)
    cache = generator.loaded.model.kv_cache
    generator.speculation, generator.loaded.pace = True, EagerPace()
    for count in range(1, 12):
        steps = generator.stream([5, 9], params)
        taken = [step.token_id for step in itertools.islice(steps, count)]
        steps.close()  # type: ignore[attr-defined]
        assert taken == [step.token_id for step in plain[:count]]
        assert cache.ids == [5, 9, *taken[:-1]]


def test_another_call_ends_a_sequence_within_a_pass(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    both(generator, monkeypatch, [5, 9], params)
    generator.speculation, generator.loaded.pace = True, EagerPace()
    for count in range(1, 6):
        steps = generator.stream([5, 9], params)
        taken = list(itertools.islice(steps, count))
        generator.stream([5, 9], params)
        with pytest.raises(SparityError, match="given up"):
            next(steps)
        assert len(taken) == count


@pytest.mark.parametrize("room", [3, 4, 9])
def test_a_full_context(
    room: int, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"dtype": "f32", "threads": 1, "max_context": room + 4}
    with Generator.load(checkpoint("mistral_window"), **options) as small:
        params = SamplingParams(temperature=0, ignore_eos=True)
        plain, drafted = both(small, monkeypatch, [5, 9, 5, 9], params)
        assert seen(drafted) == seen(plain)
        assert len(plain) == room


def test_a_plan_is_followed(planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the first positions, which are dense; every token has the channels it has alone."""
    with Generator.load(planned, threads=2) as generator:
        generator.set_plan(sparsity=0.3, force=True)
        params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
        for prompt in ([5], [5, 9, 5, 9, 5]):
            plain, drafted = both(generator, monkeypatch, prompt, params)
            assert seen(drafted) == seen(plain)
            assert 0 < drafted[-1].stats.accepted_tokens < drafted[-1].stats.drafted_tokens
            assert drafted[-1].stats.active_weight_fraction < 1


@pytest.mark.parametrize("rope", ["longrope", "dynamic"])
def test_rotations_that_depend_on_the_length(
    rope: str,
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The text grows beyond the length at which keys are rotated anew."""
    path = tiny.write(tmp_path, tiny_cases.DYNAMIC) if rope == "dynamic" else None
    with Generator.load(path or checkpoint("rope_longrope"), dtype="f32", threads=1) as model:
        params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
        plain, drafted = both(model, monkeypatch, [5, 9, 5, 9], params)
        assert seen(drafted) == seen(plain)
        assert drafted[-1].stats.accepted_tokens > 0
