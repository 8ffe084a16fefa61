"""Generator: prompts, steps, stopping, reuse of the cache, interruption, arguments out of range."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparity_edge import (
    ContextError,
    FormatError,
    Generator,
    OptionError,
    SamplingParams,
    SourceError,
    SparityError,
)
from sparity_edge.choices import KV_DTYPES

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
PROMPT = "the river and the stone"


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("llama_untied")


@pytest.fixture(scope="module")
def generator(folder: Path) -> Iterator[Generator]:
    with Generator.load(folder, dtype="f32", threads=2) as loaded:
        yield loaded


def fresh(generator: Generator) -> Generator:
    generator.loaded.model.kv_cache.trim(0)
    return generator


def test_steps_add_up_to_the_completion(generator: Generator) -> None:
    steps = list(fresh(generator).stream(PROMPT, GREEDY))
    completion = fresh(generator).generate(PROMPT, GREEDY)
    assert completion.text == "".join(step.text for step in steps)
    assert completion.token_ids == tuple(step.token_id for step in steps)
    assert len(steps) == 12
    assert [step.finish_reason for step in steps] == [None] * 11 + ["length"]
    assert completion.text == generator.tokenizer.decode(completion.token_ids)
    assert all(step.logprob <= 0 for step in steps)


def test_text_ids_and_messages_are_prompts(generator: Generator) -> None:
    ids = generator.encode(PROMPT)
    assert generator.generate(ids, GREEDY).text == generator.generate(PROMPT, GREEDY).text
    assert generator.generate(np.array(ids), GREEDY).text == generator.generate(ids, GREEDY).text
    messages = [{"role": "user", "content": PROMPT}]
    assert generator.encode(messages) == generator.tokenizer.encode_chat(messages)
    assert generator.chat(messages, GREEDY) is not None


@pytest.mark.parametrize("prompt", [[], [-1], [10**6], [True], ["text"], [1.5], [2**70]])
def test_prompts_that_are_refused(generator: Generator, prompt: object) -> None:
    with pytest.raises(OptionError):
        generator.stream(prompt, GREEDY)  # type: ignore[arg-type]


def test_statistics(generator: Generator) -> None:
    ids = generator.encode(PROMPT)
    first = fresh(generator).generate(ids, GREEDY).stats
    assert (first.prompt_tokens, first.cached_tokens, first.generated_tokens) == (len(ids), 0, 12)
    assert first.prefill_seconds > 0
    assert first.decode_seconds > 0
    assert first.decode_tokens_per_second == pytest.approx(11 / first.decode_seconds)
    assert first.active_weight_fraction == 1
    assert generator.generate(ids, GREEDY).stats.cached_tokens == len(ids) - 1


def test_the_cache_keeps_the_longest_common_prefix(generator: Generator) -> None:
    ids = generator.encode(PROMPT)
    other = [*ids[:3], ids[3] + 1, *ids[4:]]
    expected = fresh(generator).generate(other, GREEDY).token_ids
    fresh(generator).generate(ids, GREEDY)
    again = generator.generate(other, GREEDY)
    assert again.token_ids == expected
    assert again.stats.cached_tokens == 3


def test_stop_strings_end_the_text_before_them(generator: Generator) -> None:
    text = fresh(generator).generate(PROMPT, GREEDY).text
    stop = text[4:7]
    cut = generator.generate(PROMPT, SamplingParams(temperature=0, stop=stop, ignore_eos=True))
    assert cut.text == text[: text.index(stop)]
    assert cut.finish_reason == "stop"


def test_end_of_text_stops_unless_it_is_ignored(generator: Generator) -> None:
    end = generator.config.eos_token_ids[0]
    bias = {end: 1e4}
    stopped = generator.generate(PROMPT, SamplingParams(temperature=0, logit_bias=bias))
    assert (stopped.token_ids, stopped.text, stopped.finish_reason) == ((end,), "", "stop")
    ignored = SamplingParams(temperature=0, logit_bias=bias, ignore_eos=True, max_tokens=3)
    assert generator.generate(PROMPT, ignored).token_ids == (end,) * 3


def test_the_same_seed_gives_the_same_text_for_any_number_of_threads(folder: Path) -> None:
    params = SamplingParams(temperature=1.2, seed=7, max_tokens=30, ignore_eos=True)
    texts = set()
    for threads in (1, 2, 5):
        with Generator.load(folder, dtype="int8", threads=threads) as generator:
            texts.add(generator.generate(PROMPT, params).token_ids)
    assert len(texts) == 1


def test_a_full_context_ends_the_answer(folder: Path) -> None:
    with Generator.load(folder, dtype="f32", threads=1, max_context=16) as generator:
        ids = generator.encode(PROMPT)[:10]
        answer = generator.generate(ids, SamplingParams(temperature=0, ignore_eos=True))
        assert answer.finish_reason == "length"
        assert len(answer.token_ids) == 6
        with pytest.raises(ContextError, match=r"16; .* --max-context"):
            generator.stream([1] * 16)
        most = generator.config.max_position_embeddings
        with pytest.raises(ContextError, match=f"the model reads {most} tokens at most"):
            generator.stream([1] * most)
        assert generator.generate(ids, GREEDY).token_ids == answer.token_ids


def test_the_cache_grows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [5 + index % 90 for index in range(100)]
    with Generator.load(folder, dtype="f32", threads=2) as generator:
        whole = generator.generate(ids, GREEDY).token_ids
    monkeypatch.setattr("sparity_edge.model.kv_cache.FIRST_CAPACITY", 8)
    with Generator.load(folder, dtype="f32", threads=2) as generator:
        for length in (3, 20, 21, 100):
            answer = generator.generate(ids[:length], GREEDY)
    assert answer.token_ids == whole
    assert answer.stats.cached_tokens == 21


def test_closing_an_answer_leaves_the_generator_usable(generator: Generator) -> None:
    expected = fresh(generator).generate(PROMPT, GREEDY).text
    stream = generator.stream(PROMPT, GREEDY)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert generator.generate(PROMPT, GREEDY).text == expected


def test_ctrl_c_between_tokens_leaves_the_generator_usable(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fresh(generator).generate(PROMPT, GREEDY).text
    model, calls = generator.loaded.model, []

    def interrupted(ids: list[int], sparse: bool, **options: Any) -> np.ndarray:
        calls.append(ids)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return type(model).read(model, ids, sparse, **options)

    with monkeypatch.context() as patch:
        patch.setattr(model, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generator.generate(PROMPT, GREEDY)
    assert generator.generate(PROMPT, GREEDY).text == expected


def test_an_older_answer_notices_a_newer_call(generator: Generator) -> None:
    older = generator.stream(PROMPT, GREEDY)
    next(older)
    generator.generate(PROMPT, GREEDY)
    with pytest.raises(SparityError, match="second Generator"):
        next(older)


def test_two_generators_answer_at_once(folder: Path) -> None:
    results: dict[int, tuple[int, ...]] = {}

    def work(index: int) -> None:
        with Generator.load(folder, dtype="f32", threads=2) as generator:
            results[index] = generator.generate(PROMPT, GREEDY).token_ids

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(results) == 3
    assert len(set(results.values())) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"threads": 0},
        {"threads": 10**6},
        {"threads": True},
        {"max_context": 1},
        {"max_context": 10**9},
        {"dtype": "int3"},
        {"sparsity": 0.95},
        {"cache_dtype": "int3"},
    ],
)
def test_arguments_out_of_range(folder: Path, arguments: dict) -> None:
    with pytest.raises(OptionError):
        Generator.load(folder, **arguments)


def test_an_unknown_argument_is_an_error(folder: Path) -> None:
    with pytest.raises(TypeError):
        Generator.load(folder, temprature=1)  # type: ignore[call-arg]


def test_no_such_model(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        Generator.load(tmp_path / "nothing")


def test_info_is_json(generator: Generator) -> None:
    info = generator.info()
    assert info["threads"] == 2
    assert info["dtypes"] == ["f32"]
    assert info["weight_bytes"] > 0
    assert all(isinstance(value, str | int | float | list | dict) for value in info.values())


def test_logits_are_finite_and_complete(generator: Generator) -> None:
    ids = generator.encode(PROMPT)
    parts = [np.array(part) for part in generator.logits(ids)]
    logits = np.concatenate(parts)
    assert logits.shape == (len(ids), generator.config.vocab_size)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("cache_dtype", KV_DTYPES)
def test_a_saved_cache_saves_reading(folder: Path, tmp_path: Path, cache_dtype: str) -> None:
    file = tmp_path / "cache.safetensors"
    options: dict[str, Any] = {"dtype": "f32", "threads": 1, "cache_dtype": cache_dtype}
    with Generator.load(folder, **options) as generator:
        expected = generator.generate(PROMPT, GREEDY)
        rows = [np.array(each[:, :20]) for each in generator.loaded.model.kv_cache.layer(0)]
        generator.save_cache(file)
    with Generator.load(folder, **options) as other:
        other.load_cache(file)
        for ours, theirs in zip(other.loaded.model.kv_cache.layer(0), rows, strict=True):
            assert ours[:, :20].tobytes() == theirs.tobytes()
        answer = other.generate(PROMPT, GREEDY)
        assert answer.token_ids == expected.token_ids
        assert answer.stats.cached_tokens == answer.stats.prompt_tokens - 1


def test_int8_keys_and_values_take_little_more_than_a_quarter(folder: Path) -> None:
    sizes = {}
    for cache_dtype in KV_DTYPES:
        with Generator.load(folder, dtype="f32", cache_dtype=cache_dtype) as generator:
            assert generator.info()["cache_dtype"] == cache_dtype
            sizes[cache_dtype] = generator.info()["cache_bytes_per_token"]
            heads = 2 * generator.config.num_hidden_layers * generator.config.num_key_value_heads
            head_dim = generator.config.head_dim
    assert sizes["f32"] == 2 * sizes["bf16"] == 4 * heads * head_dim
    assert sizes["int8"] == heads * (head_dim + 4 * -(-head_dim // 32))


def test_saved_caches_that_are_refused(generator: Generator, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "cache.safetensors"
    with pytest.raises(FormatError):
        generator.load_cache(file)
    generator.generate(PROMPT, GREEDY)
    generator.save_cache(file)
    content = file.read_bytes()
    for damaged in (b"", content[:100], content[:-1], b"\xff" * 64):
        file.write_bytes(damaged)
        with pytest.raises(FormatError):
            generator.load_cache(file)
    file.write_bytes(content)
    with Generator.load(folder, dtype="int8", threads=1) as other, pytest.raises(FormatError):
        other.load_cache(file)
    other = Generator.load(folder, dtype="f32", threads=1, cache_dtype="int8")
    with other, pytest.raises(FormatError, match="another number format than int8"):
        other.load_cache(file)
    small = Generator.load(folder, dtype="f32", threads=1, max_context=4)
    with small, pytest.raises(ContextError):
        small.load_cache(file)
    with pytest.raises(FormatError):
        generator.save_cache(tmp_path / "no" / "such" / "folder")


def test_a_broken_model_is_told(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = np.full(generator.config.vocab_size, math.nan, dtype=np.float32)
    monkeypatch.setattr(generator.loaded.model, "read", lambda *_, **__: broken)
    with pytest.raises(SparityError, match="not a number"):
        generator.generate(PROMPT, GREEDY)
