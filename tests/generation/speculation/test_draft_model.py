"""Guesses of a draft model: the text stays as it is, whatever the draft model thinks of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from eager_pace import EagerPace

from sparity_edge import Generator
from sparity_edge.errors import OptionError
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.speculation.draft_model import AT_LARGE, PRIOR, SHARES, DraftModel
from sparity_edge.generation.speculation.ngrams import NGrams
from sparity_edge.generation.speculation.pace import Pace
from sparity_edge.generation.speculation.prices import SIZES, PriceList, Prices
from sparity_edge.kernels.program.machine import ThreadedMachine

Checkpoint = Callable[[str], Path]
WAYS: tuple[dict[str, Any], ...] = (
    {"temperature": 0},
    {"seed": 3, "temperature": 1.1, "top_k": 0, "repetition_penalty": 1.2},
)


# What counts guesses of the draft model in a test.
TO_USE: list[Callable[[Prices], Pace]] = [Pace]


class Dear:
    """Prices of a machine on which passes over several tokens save nothing."""

    def find(self) -> PriceList:
        return {size: {0: float(size)} for size in SIZES}

    def keep(self, _prices: PriceList) -> None:
        pass


class Eager(EagerPace):
    """A pace that makes and reads all guesses, whatever they cost."""

    def worth(self, _chance: float, _cost: float, _depth: int, most: int) -> tuple[int, float]:
        return most, 100.0


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is compiled at once, and nothing is found in the text."""
    monkeypatch.setattr(ThreadedMachine, "batches_ready", lambda _: True)
    monkeypatch.setattr(NGrams, "_find", lambda _: None)
    monkeypatch.setattr(DraftModel, "pace", lambda _, prices: TO_USE[0](prices))


@pytest.fixture(scope="module", params=["llama_gqa", "qwen2_plain"])
def generator(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Iterator[Generator]:
    """A tiny model with itself as a draft model in fewer bits, or with another one."""
    options: dict[str, Any] = {"dtype": "int8", "threads": 2, "draft": checkpoint(request.param)}
    with Generator.load(checkpoint("llama_gqa"), **options) as made:
        yield made


@pytest.mark.parametrize("way", WAYS)
def test_the_text_is_that_of_the_larger_model(generator: Generator, way: dict[str, Any]) -> None:
    params = SamplingParams(max_tokens=40, ignore_eos=True, **way)
    found = []
    for speculation in (False, True, True):
        generator.speculation, TO_USE[0] = speculation, Eager
        cache = generator.loaded.model.kv_cache
        for prompt in ([5, 9, 77], [5, 9, 78, 3]):
            cache.trim(0)
            found.append(generator.generate(prompt, params))
    for index, each in enumerate(found[2:]):
        assert each.token_ids == found[index % 2].token_ids
        assert each.logprobs == found[index % 2].logprobs
        assert each.stats.drafted_tokens >= each.stats.accepted_tokens
    draft = generator.loaded.draft_model
    assert draft is not None
    drafted = sum(each.stats.drafted_tokens for each in found)
    accepted = sum(each.stats.accepted_tokens for each in found)
    if draft.model.config == generator.config and way["temperature"] == 0:
        assert accepted > 40
    else:
        assert drafted > accepted
    assert generator.loaded.model.machine is draft.model.machine


def test_nothing_is_guessed_where_it_does_not_pay(generator: Generator) -> None:
    TO_USE[0] = Pace
    generator.speculation, generator.loaded.pace = True, Pace(Prices(Dear()))
    params = SamplingParams(max_tokens=20, ignore_eos=True, temperature=0)
    draft = generator.loaded.draft_model
    assert draft is not None
    draft.model.kv_cache.trim(0)
    assert generator.generate([5, 9, 7], params).stats.drafted_tokens == 0
    assert len(draft.model.kv_cache) == 0


def test_guesses_are_made_where_they_pay() -> None:
    pace = Pace()
    assert pace.worth(0.95, 0.1, 0, 7) == pytest.approx((7, 1.95), abs=0.01)
    assert pace.worth(0.95, 0.1, 0, 3)[0] == 3
    assert pace.worth(0.75, 0.45, 0, 7) == (0, 1.0)
    assert pace.worth(0.3, 0.0, 0, 7)[0] == 0
    for seconds in (0.01, 0.01, 0.01):
        pace.passed(1, 1, seconds, 0)
    pace.passed(1, 1, 0.01, 0, spent=0.2)
    assert pace.credit < 0
    assert pace.worth(0.95, 0.1, 0, 7)[0] == 0
    for _ in range(1000):
        pace.earn(1)
    assert pace.worth(0.95, 0.1, 0, 7)[0] > 0
    assert len(SHARES) == len(PRIOR)
    assert 0 < AT_LARGE < 1


def test_another_vocabulary_is_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    other = shutil.copytree(checkpoint("qwen2_plain"), tmp_path / "other")
    content = json.loads((other / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[30:32]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(OptionError, match=r"cannot draft for this model: token 30 is '.+' in its"):
        Generator.load(checkpoint("llama_gqa"), draft=other, threads=1)
