"""Batches: sequences equal those generated one by one, and what may go wrong."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparity_edge import (
    Completion,
    ContextError,
    Generator,
    OptionError,
    SamplingParams,
)
from sparity_edge.generation.batch import MOST_TOGETHER
from sparity_edge.kernels.batch.products import vmm_each_floats
from sparity_edge.model.kv_cache import LEAST_SHARED, KVCache
from sparity_edge.model.prefixes.parts import FEW

CASE = "llama_gqa"
PROMPTS = [[5 + (7 * i + 3 * k) % 200 for k in range(n)] for i, n in enumerate((1, 7, 2, 40, 3))]
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint(CASE)


@pytest.fixture(scope="module")
def generator(folder: Path) -> Iterator[Generator]:
    with Generator.load(folder, dtype="f32", threads=2) as loaded:
        yield loaded


def one_by_one(generator: Generator, prompts: Any, params: Any) -> list[Completion]:
    each = params if isinstance(params, list) else [params] * len(prompts)
    answers = []
    for prompt, own in zip(prompts, each, strict=True):
        generator.loaded.model.kv_cache.trim(0)
        answers.append(generator.generate(prompt, own))
    return answers


def assert_same(ours: list[Completion], expected: list[Completion]) -> None:
    for mine, theirs in zip(ours, expected, strict=True):
        assert mine.token_ids == theirs.token_ids
        assert (mine.text, mine.finish_reason) == (theirs.text, theirs.finish_reason)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["f32", "bf16", "int8", "int4"])
def test_the_same_answers_as_one_by_one(folder: Path, threads: int, dtype: str) -> None:
    with Generator.load(folder, dtype=dtype, threads=threads, cache_dtype="f32") as generator:
        expected = one_by_one(generator, PROMPTS, GREEDY)
        for size in (1, 2, 5):
            assert_same(generator.generate_batch(PROMPTS[:size], GREEDY), expected[:size])


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 50),
            st.integers(1, 9),
            st.sampled_from([0, 0.9]),
            st.booleans(),
            st.integers(0, 99),
        ),
        max_size=MOST_TOGETHER + 2,
    )
)
def test_ragged_lengths_and_early_stops(
    generator: Generator, cases: list[tuple[int, int, float, bool, int]]
) -> None:
    prompts = [
        list(np.random.default_rng(seed).integers(3, 200, length)) for length, *_, seed in cases
    ]
    params = [
        SamplingParams(
            temperature=heat, max_tokens=most, seed=seed, logit_bias={2: 12.0} if ends else {}
        )
        for _, most, heat, ends, seed in cases
    ]
    assert_same(generator.generate_batch(prompts, params), one_by_one(generator, prompts, params))


def test_stop_strings_are_each_ones_own(generator: Generator) -> None:
    text = one_by_one(generator, PROMPTS[:1], GREEDY)[0].text
    params = [SamplingParams(temperature=0, stop=text[4:6], max_tokens=12), GREEDY]
    answers = generator.generate_batch([PROMPTS[0], PROMPTS[0]], params)
    assert answers[0].text == text[: text.index(text[4:6])]
    assert answers[1].text == text


def test_steps_come_with_the_number_of_their_prompt(generator: Generator) -> None:
    steps = list(generator.stream_batch(PROMPTS[:3], GREEDY))
    assert sorted(index for index, _ in steps) == [0] * 12 + [1] * 12 + [2] * 12
    for wanted, answer in enumerate(generator.generate_batch(PROMPTS[:3], GREEDY)):
        own = [step for index, step in steps if index == wanted]
        assert answer.text == "".join(step.text for step in own)
        assert own[-1].stats.generated_tokens == 12
        assert own[-1].stats.decode_tokens_per_second > 0


def test_text_and_messages_are_prompts(generator: Generator) -> None:
    prompts = ["the river", [{"role": "user", "content": "a stone"}], generator.encode("a tree")]
    assert_same(generator.generate_batch(prompts, GREEDY), one_by_one(generator, prompts, GREEDY))


def test_the_first_batch_compiles_before_the_lock_is_taken(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []

    def progress(label: str, done: int, total: int) -> None:
        assert not generator.loaded.busy.locked()
        told.append((label, done, total))

    monkeypatch.setattr(generator.loaded, "progress", progress)
    generator.generate_batch(PROMPTS[:1], GREEDY)
    monkeypatch.setattr(vmm_each_floats, "_compiled", None)
    generator.generate_batch(PROMPTS[:1], GREEDY)  # alone, one needs no other kernels
    assert not told
    for _ in range(2):
        generator.generate_batch(PROMPTS[:2], GREEDY)
        assert told == [("compiling kernels", 0, 1), ("compiling kernels", 1, 1)]


def test_the_conversation_stays_as_it_is(generator: Generator) -> None:
    generator.generate(PROMPTS[3], GREEDY)
    cache = generator.loaded.model.kv_cache
    ids, rows = list(cache.ids), [np.array(each) for each in cache.layer(1)]
    generator.generate_batch(PROMPTS, GREEDY)
    assert cache.ids == ids
    for now, before in zip(cache.layer(1), rows, strict=True):
        assert np.array_equal(now[:, : len(ids)], before[:, : len(ids)])
    older = generator.stream(PROMPTS[3], GREEDY)
    first = next(older)
    generator.generate_batch(PROMPTS, GREEDY)
    tokens = [first.token_id, *(step.token_id for step in older)]
    assert tuple(tokens) == generator.generate(PROMPTS[3], GREEDY).token_ids


def test_what_prompts_begin_with_is_read_once(generator: Generator) -> None:
    generator.loaded.model.kv_cache.trim(0)
    shared = [5 + k % 90 for k in range(LEAST_SHARED + 5)]
    prompts = [[*shared, 7, 9], [*shared, *range(8, 9 + FEW)], shared[:8]]
    answers = generator.generate_batch(prompts, GREEDY)
    assert [each.stats.cached_tokens for each in answers] == [0, len(shared), 0]
    assert_same(answers, one_by_one(generator, prompts, GREEDY))


def test_caches_grow_and_are_let_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparity_edge.model.kv_cache.FIRST_CAPACITY", 8)
    monkeypatch.setattr("sparity_edge.model.kv_cache.STEP", 4)
    with Generator.load(folder, dtype="f32", threads=2) as generator:
        expected = one_by_one(generator, PROMPTS, GREEDY)
        model, made = generator.loaded.model, []
        new_kv_cache = model.new_kv_cache

        def noted() -> KVCache:
            made.append(weakref.ref(cache := new_kv_cache()))
            return cache

        monkeypatch.setattr(model, "new_kv_cache", noted)
        assert_same(generator.generate_batch(PROMPTS, GREEDY), expected)
        assert {cache() for cache in made} == {None}  # no recording keeps one


def test_a_full_context_ends_an_answer(folder: Path) -> None:
    with Generator.load(folder, dtype="f32", threads=1, max_context=16) as generator:
        answers = generator.generate_batch([[5] * 10, [6] * 3], GREEDY)
        assert [len(each.token_ids) for each in answers] == [6, 12]
        with pytest.raises(ContextError, match=r"Prompt 1: .* 16"):
            generator.generate_batch([[5], [6] * 16])


@pytest.mark.parametrize(
    ("prompts", "params", "sentence"),
    [
        ("a text", None, "put a single one into a list"),
        (7, None, "put a single one into a list"),
        ([[5], [6]], [GREEDY], "2 prompts and 1 params"),
        ([[5], []], None, "Prompt 1: The prompt is empty"),
        ([5, 6], None, "Prompt 0: 5 is no prompt"),
        ([[5], [10**6]], None, "Prompt 1: .* outside the vocabulary"),
        ([[5]], SamplingParams(logit_bias={10**6: 1.0}), "Prompt 0: .* vocabulary ends"),
    ],
)
def test_batches_that_are_refused(
    generator: Generator, prompts: Any, params: Any, sentence: str
) -> None:
    with pytest.raises(OptionError, match=sentence):
        generator.stream_batch(prompts, params)


def test_no_prompts_no_answers(generator: Generator) -> None:
    assert generator.generate_batch([]) == []
    assert generator.generate_batch([], []) == []


def test_ctrl_c_leaves_the_generator_usable(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = one_by_one(generator, PROMPTS, GREEDY)
    model, calls = generator.loaded.model, []

    def interrupted(*arguments: Any) -> np.ndarray:
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return type(model).read_together(model, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(model, "read_together", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generator.generate_batch(PROMPTS, GREEDY)
    assert_same(generator.generate_batch(PROMPTS, GREEDY), expected)
    assert_same(one_by_one(generator, PROMPTS, GREEDY), expected)


def test_closing_the_steps_ends_the_batch(generator: Generator) -> None:
    steps = generator.stream_batch(PROMPTS, GREEDY)
    next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert_same(generator.generate_batch(PROMPTS, GREEDY), one_by_one(generator, PROMPTS, GREEDY))
