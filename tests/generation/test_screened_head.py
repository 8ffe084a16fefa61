"""The LM head behind its screen: the text of the full head, whatever decides on a token."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparity_edge import Generator, SamplingParams
from sparity_edge.generation.sampler import MOST_WANTED, Sampler
from sparity_edge.model.screened_head import Wanted
from sparity_edge.text.default_text import default_documents

PROMPT = [{"role": "user", "content": "Write a short story about a lighthouse keeper."}]


@pytest.fixture(scope="module")
def pair(smollm2_gguf: Path) -> Iterator[tuple[Generator, Generator]]:
    """The model with its screen, and with its full head."""
    with (
        Generator.load(smollm2_gguf, threads=2) as screened,
        screened.twin() as full,
    ):
        full.loaded.model.set_screen(None)
        yield screened, full


WAYS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"top_k": 1, "temperature": 2.0},
    {"seed": 1},
    {"seed": 2, "top_k": 5, "min_p": 0.05},
    {"seed": 3, "top_k": 200, "top_p": 1.0, "temperature": 1.5},
    {"temperature": 0, "repetition_penalty": 1.3},
    {"seed": 4, "presence_penalty": 1.0, "frequency_penalty": 0.5},
    {"seed": 5, "logit_bias": {260: -float("inf"), 253: -5.0, 28: 3.0}},
    {"temperature": 0, "logit_bias": dict.fromkeys(range(0, 49152, 100), 1.0)},
    {"seed": 6, "top_k": 0},
    {"seed": 7, "logprobs": True},
    {"seed": 8, "top_logprobs": 3},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_text_is_that_of_the_full_head(
    pair: tuple[Generator, Generator], way: dict[str, Any]
) -> None:
    params = SamplingParams(max_tokens=24, ignore_eos=True, **way)
    screened, full = (each.generate(PROMPT, params) for each in pair)
    assert screened.token_ids == full.token_ids
    assert None not in full.logprobs
    if {"logprobs", "top_logprobs"} & {*way} or way.get("top_k") == 0:
        assert screened.logprobs == full.logprobs
        assert screened.top_logprobs == full.top_logprobs
    else:  # a prompt that is read gives all logits
        assert screened.logprobs[1:] == (None,) * 23


@pytest.mark.parametrize("way", [{"temperature": 0}, {"seed": 1}, {"seed": 2, "top_k": 5}], ids=str)
def test_what_follows_a_schema_is_that_of_the_full_head(
    pair: tuple[Generator, Generator], way: dict[str, Any]
) -> None:
    pytest.importorskip("llguidance", reason="the extra [server] is not installed")
    kind = {"type": "string", "pattern": "^[a-z]{3,9}$"}
    schema = {"type": "object", "properties": {"who": {"type": "string"}, "kind": kind}}
    schema["required"] = ["who", "kind"]
    params = SamplingParams(max_tokens=24, **way)
    screened, full = (each.generate(PROMPT, params, schema=schema) for each in pair)
    assert screened.token_ids == full.token_ids
    assert screened.logprobs.count(None) > full.logprobs.count(None)


def test_positions_of_a_text_have_the_logits_that_count(pair: tuple[Generator, Generator]) -> None:
    screened, full = (each.loaded.model for each in pair)
    ids = pair[0].encode("\n".join(default_documents()[-9:]))[-200:]
    for model in (screened, full):
        model.kv_cache.trim(0)
        model.read(ids[:8])
    kept = computed = 0
    for token in ids[8:]:
        logits = screened.read([token], wanted=Wanted(40, np.zeros(0, dtype=np.int64)))
        exact = screened.exact_ids
        whole = full.read([token])
        assert exact is not None
        assert full.exact_ids is None
        np.testing.assert_array_equal(logits[exact], whole[exact])
        assert exact[logits[exact].argmax()] == whole.argmax()
        kept += len(np.intersect1d(np.argpartition(-whole, 40)[:40], exact))
        computed += len(exact)
    assert kept >= 0.999 * 40 * 192
    assert computed < 192 * len(whole) / 4


def test_processors_see_all_logits(pair: tuple[Generator, Generator]) -> None:
    seen = []

    def ban(_ids: Any, logits: Any) -> Any:
        seen.append(logits.copy())
        return logits

    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    results = [each.generate(PROMPT, params, logits_processors=[ban]) for each in pair]
    assert results[0] == results[1] or results[0].token_ids == results[1].token_ids
    for mine, yours in zip(seen[:4], seen[4:], strict=True):
        np.testing.assert_array_equal(mine, yours)


def test_what_is_wanted() -> None:
    def wanted(history: list[int], sampled: int = 0, **options: Any) -> Any:
        found = Sampler(SamplingParams(**options), 100).wanted(history, sampled)
        return None if found is None else (found.count, found.required.tolist())

    assert wanted([]) == (40, [])
    assert wanted([5], temperature=0) == (1, [])
    assert wanted([5], top_k=0) is None
    assert wanted([5], top_k=MOST_WANTED + 1) is None
    assert wanted([5], logprobs=True) is wanted([5], top_logprobs=1) is None
    assert wanted([7, 5, 7], repetition_penalty=1.1, logit_bias={6: 1}) == (40, [5, 6, 7])
    assert wanted([7, 5, 3], 2, presence_penalty=1) == (40, [3, 5])
    assert wanted([7, 5, 3], 0, presence_penalty=1) == (40, [])
