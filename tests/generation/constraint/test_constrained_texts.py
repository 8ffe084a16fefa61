"""Texts that follow a schema, regex or grammar: one by one, in batches, behind a screened head."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eager_pace import EagerPace

from sparity_edge import Generator, OptionError, SamplingParams
from sparity_edge.generation.sampler import Sampler
from sparity_edge.logits import logprob_of

pytest.importorskip("llguidance", reason="the extra [server] is not installed")

PET: dict[str, Any] = {
    "type": "object",
    "properties": {"kind": {"enum": ["cat", "dog"]}, "age": {"type": "integer", "maximum": 20}},
    "required": ["kind", "age"],
    "additionalProperties": False,
}
DRAWN = SamplingParams(temperature=1, top_k=0, top_p=1, seed=5, max_tokens=60)
PROMPTS = [[5, 12, 19, 26], [7, 8], [9, 30, 31]]


@pytest.fixture(scope="module")
def generator(checkpoint: Callable[[str], Path]) -> Iterator[Generator]:
    with Generator.load(checkpoint("llama_gqa"), dtype="f32", threads=2) as loaded:
        yield loaded


def test_a_schema_is_followed_and_the_text_ends_with_it(generator: Generator) -> None:
    for schema in (PET, json.dumps(PET)):
        found = generator.generate([1, 2], DRAWN, schema=schema)
        assert found.finish_reason == "stop"
        pet = json.loads(found.text)
        assert set(pet) == {"kind", "age"}
        assert pet["kind"] in ("cat", "dog")


def test_an_answer_that_is_cut_says_so(generator: Generator) -> None:
    params = SamplingParams(temperature=0, max_tokens=4)
    assert generator.generate([1, 2], params, schema=PET).finish_reason == "length"


def test_the_same_alone_and_together(generator: Generator) -> None:
    alone = [generator.generate(each, DRAWN, schema=PET) for each in PROMPTS]
    together = generator.generate_batch(PROMPTS, DRAWN, schema=PET)
    assert [each.token_ids for each in alone] == [each.token_ids for each in together]
    assert len({each.text for each in alone}) > 1


def test_forced_tokens_are_read_together(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = generator.generate([1, 2], DRAWN, schema=PET)
    generator.loaded.model.machine.compile_batches(generator.loaded.progress)
    monkeypatch.setattr(generator.loaded, "pace", EagerPace())
    monkeypatch.setattr(generator.loaded, "speculation", False)
    found = generator.generate([1, 2], DRAWN, schema=PET)
    assert found.token_ids == alone.token_ids
    assert found.stats.accepted_tokens == found.stats.drafted_tokens > 0
    assert found.stats.decode_passes < found.stats.generated_tokens - 1


def test_regex_and_grammar(generator: Generator) -> None:
    assert generator.generate([1, 2], DRAWN, regex="(ab){3}c").text == "abababc"
    found = generator.generate([1, 2], DRAWN, grammar='start: "x" ("y" | "z") "x"')
    assert found.text in ("xyx", "xzx")
    own = json.dumps({"grammars": [{"lark_grammar": 'start: "x"'}]})
    assert generator.generate([1, 2], DRAWN, grammar=own).text == "x"


def test_only_where_the_text_may_end_does_it(generator: Generator) -> None:
    eager = dict.fromkeys(generator.loaded.end_ids, 100.0)
    params = SamplingParams(temperature=0, logit_bias=eager)
    assert generator.generate([1, 2], params, regex="ab(cd)*").text == "ab"


def test_log_probabilities_are_the_models_own(generator: Generator) -> None:
    params = SamplingParams(temperature=0, max_tokens=30, logprobs=True)
    found = generator.generate([1, 2], params, schema=PET)
    rows = np.concatenate([part.copy() for part in generator.logits([1, 2, *found.token_ids])])
    for at, (token, logprob) in enumerate(zip(found.token_ids, found.logprobs)):
        row = rows[at + 1].astype(np.float64)
        assert logprob == pytest.approx(row[token] - np.log(np.exp(row).sum()), abs=1e-4)


def test_what_is_drawn_from_is_the_distribution_over_what_may_come() -> None:
    random = np.random.default_rng(0)
    logits = random.standard_normal(12).astype(np.float32)
    mask = np.zeros(12, dtype=np.bool_)
    mask[[2, 3, 7, 11]] = True
    alone = np.where(mask, logits, -np.inf).astype(np.float32)
    params = SamplingParams(
        temperature=1, top_k=3, top_p=0.9, seed=3, presence_penalty=0.5, logit_bias={3: 1.0, 5: 9.0}
    )
    for history in ([], [2, 5, 7]):
        masked, plain = Sampler(params, 12), Sampler(params, 12)
        for _ in range(50):
            token, logprob = masked.sample(logits, history, len(history), mask=mask)
            assert token == plain.sample(alone, history, len(history))[0]
            assert logprob == logprob_of(logits, token)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"schema": {"type": "string", "not": {}}}, "schema cannot be followed: .*not"),
        ({"schema": []}, "schema is no JSON object"),
        ({"schema": "{"}, "schema is no JSON "),
        ({"schema": {"$ref": "#"}}, "schema cannot be followed: no text does"),
        ({"schema": {"$ref": "#/$defs/x"}}, "schema cannot be followed: .*does not exist"),
        ({"schema": {"enum": ["x" * 300_000]}}, "schema has 300,014 bytes"),
        ({"regex": "(("}, "regex cannot be followed: .*unclosed group"),
        ({"regex": ""}, "regex is no text"),
        ({"grammar": "start: foo"}, "grammar cannot be followed: .*unknown name"),
        ({"grammar": '{"grammars": []}'}, "grammar cannot be followed: "),
        ({"regex": "a", "schema": {}}, "schema and regex were given together"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    generator: Generator, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        generator.stream([1, 2], DRAWN, **asked)
    assert "\n" not in str(caught.value)


def test_the_end_of_the_text_cannot_be_ignored(generator: Generator) -> None:
    with pytest.raises(OptionError, match="ignore_eos"):
        generator.generate([1, 2], SamplingParams(ignore_eos=True), schema=PET)
