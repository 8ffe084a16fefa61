"""Logits processors: what they see, what they change, and what they may not give back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparity_edge import Generator, OptionError, SamplingParams

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
PROMPT = [5, 12, 19, 26]


@pytest.fixture(scope="module")
def generator(checkpoint: Callable[[str], Path]) -> Iterator[Generator]:
    with Generator.load(checkpoint("llama_gqa"), dtype="f32", threads=2) as loaded:
        yield loaded


class Banned:
    """Bans one token, and keeps what it was given."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.seen: list[tuple[int, ...]] = []

    def __call__(self, ids: Sequence[int], logits: np.ndarray) -> np.ndarray:
        self.seen.append(tuple(ids))
        logits[self.token] = -np.inf
        return logits


def plus(token: int, amount: float) -> Callable[[Sequence[int], np.ndarray], np.ndarray]:
    def process(_: Sequence[int], logits: np.ndarray) -> np.ndarray:
        changed = logits.copy()
        changed[token] += np.float32(amount)
        return changed

    return process


def test_a_banned_token_never_comes_and_ids_are_prompt_and_answer(generator: Generator) -> None:
    plain = generator.generate(PROMPT, GREEDY)
    ban = Banned(plain.token_ids[0])
    answer = generator.generate(PROMPT, GREEDY, logits_processors=[ban])
    assert ban.token not in answer.token_ids
    full = (*PROMPT, *answer.token_ids)
    assert ban.seen == [full[: len(PROMPT) + count] for count in range(12)]
    # Bias does the same, and nothing of the processor is left behind.
    biased = SamplingParams(
        temperature=0, max_tokens=12, ignore_eos=True, logit_bias={ban.token: -np.inf}
    )
    assert generator.generate(PROMPT, biased).token_ids == answer.token_ids
    assert generator.generate(PROMPT, GREEDY).token_ids == plain.token_ids


def test_processors_follow_each_other_and_log_probabilities_are_the_models(
    generator: Generator,
) -> None:
    both = [plus(7, 1000), Banned(7)]
    plain = generator.generate(PROMPT, GREEDY)
    assert set(generator.generate(PROMPT, GREEDY, logits_processors=both[:1]).token_ids) == {7}
    assert generator.generate(PROMPT, GREEDY, logits_processors=both).token_ids == tuple(
        generator.generate(PROMPT, GREEDY, logits_processors=[Banned(7)]).token_ids
    )
    (first, *_) = generator.stream(PROMPT, GREEDY, logits_processors=[plus(7, 1000)])
    (own, *_) = generator.stream(PROMPT, GREEDY)
    assert own.token_id == plain.token_ids[0]
    assert first.logprob < own.logprob


def test_a_chat_takes_them_too(generator: Generator) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    assert set(generator.chat(messages, GREEDY, logits_processors=[plus(9, 1000)]).token_ids) == {9}


def test_a_batch_has_them_for_all_or_by_prompt(generator: Generator) -> None:
    prompts = [PROMPT, PROMPT, [8, 9]]
    first = generator.generate(PROMPT, GREEDY).token_ids[0]
    for_all = generator.generate_batch(prompts, GREEDY, logits_processors=[Banned(first)])
    assert all(first not in answer.token_ids for answer in for_all)
    bans = [Banned(first), Banned(first + 1)]
    answers = generator.generate_batch(
        prompts, GREEDY, logits_processors=[[bans[0]], [], [bans[1], plus(11, 1000)]]
    )
    assert first not in answers[0].token_ids
    assert answers[1].token_ids[0] == first
    assert set(answers[2].token_ids) == {11}
    assert all(ids[: len(PROMPT)] == tuple(PROMPT) for ids in bans[0].seen)
    assert [ids[0] for ids in bans[1].seen] == [8] * 12
    with pytest.raises(OptionError, match="3 prompts and 2 lists of logits_processors"):
        generator.generate_batch(prompts, GREEDY, logits_processors=[[], []])


@pytest.mark.parametrize(
    ("gives", "words"),
    [
        (lambda _, x: x[:5], r"gave float32 of shape \(5,\); it has to give float32 numbers"),
        (lambda _, x: x.astype(np.float64), "gave float64 of shape"),
        (lambda _, x: x.tolist(), "gave list; it has to"),
        (lambda *_: None, "gave NoneType; it has to"),
        (lambda _, x: x * np.nan, "with NaN; it has to"),
        (lambda _, x: np.full_like(x, -np.inf), "ban every token"),
    ],
)
def test_other_logits_are_refused(generator: Generator, gives: Any, words: str) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        generator.generate(PROMPT, GREEDY, logits_processors=[gives])
    assert str(caught.value).endswith(".")
    assert len(generator.generate(PROMPT, GREEDY).token_ids) == 12


@pytest.mark.parametrize("wrong", [[3], "no", 7])
def test_what_is_no_list_of_functions_is_refused_at_once(generator: Generator, wrong: Any) -> None:
    with pytest.raises(OptionError, match="logits_processors"):
        generator.stream(PROMPT, GREEDY, logits_processors=wrong)
