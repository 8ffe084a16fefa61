"""Logits and greedy text of every tiny checkpoint against transformers (golden/make_goldens.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tiny
from goldens import GOLDEN, assert_golden
from stepwise import all_logits

import sparity_edge.model.prefixes.parts
from sparity_edge import Generator, SamplingParams
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.model.model import Model
from sparity_edge.model.opening import open_packed

Floats = npt.NDArray[np.float32]
GREEDY = SamplingParams(temperature=0, max_tokens=32, ignore_eos=True)


@pytest.fixture(scope="module", params=tiny.CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def generator(case: str, checkpoint: Callable[[str], Path]) -> Iterator[Generator]:
    with Generator.load(str(checkpoint(case)), dtype="f32", threads=2) as loaded:
        yield loaded


@pytest.mark.parametrize("step", [tiny.IDS_LENGTH, 16, 1], ids=["at once", "in parts", "singly"])
def test_logits(case: str, generator: Generator, step: int) -> None:
    assert_golden(case, all_logits(generator.loaded.model, tiny.ids_of(case), step))


def test_logits_in_small_chunks(
    case: str, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparity_edge.model.prefixes.parts, "CHUNK", 7)
    assert_golden(case, all_logits(generator.loaded.model, tiny.ids_of(case), tiny.IDS_LENGTH))


def test_logits_in_plain_numpy(case: str, generator: Generator) -> None:
    model = Model(open_packed(generator.path), ReferenceMachine(), 64)
    assert_golden(case, all_logits(model, tiny.ids_of(case), tiny.IDS_LENGTH))


def test_greedy_tokens(case: str, generator: Generator) -> None:
    expected = GOLDEN[f"{case}/greedy"].tolist()
    ids = tiny.ids_of(case)
    cold = generator.generate(ids, GREEDY)
    assert list(cold.token_ids) == expected
    assert cold.finish_reason == "length"
    # Once more from the cache, and with a prompt that ends within the answer.
    assert list(generator.generate(ids, GREEDY).token_ids) == expected
    longer = generator.generate(ids + expected[:9], GREEDY)
    assert longer.stats.cached_tokens > len(ids)
    assert list(longer.token_ids[:23]) == expected[9:]


def test_prompt_and_cache_agree_after_a_change_of_mind(case: str, generator: Generator) -> None:
    ids = tiny.ids_of(case)
    generator.generate([*ids[:20], *ids[:20]], GREEDY)
    again = generator.generate(ids, GREEDY)
    assert again.stats.cached_tokens == 20
    assert list(again.token_ids) == GOLDEN[f"{case}/greedy"].tolist()


def test_any_of_several_end_tokens_ends_an_answer(checkpoint: Callable[[str], Path]) -> None:
    greedy = GOLDEN["llama_gqa/greedy"].tolist()
    end = greedy.index(206)  # the third id in the case's generation_config.json
    params = SamplingParams(temperature=0, max_tokens=32)
    with Generator.load(checkpoint("llama_gqa"), dtype="f32") as generator:
        answer = generator.generate(tiny.ids_of("llama_gqa"), params)
    assert list(answer.token_ids) == greedy[: end + 1]
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize(("dtype", "allowed"), [("bf16", 0.02), ("int8", 0.05), ("int4", 0.5)])
def test_other_number_formats_come_close(
    dtype: str, allowed: float, checkpoint: Callable[[str], Path]
) -> None:
    """The allowed root mean square error is a share of the spread of the logits, about 2.5."""
    name = "llama_small"
    with Generator.load(checkpoint(name), dtype=dtype, threads=1) as generator:
        logits = all_logits(generator.loaded.model, tiny.ids_of(name), tiny.IDS_LENGTH)
        single = all_logits(generator.loaded.model, tiny.ids_of(name), 1)
    columns = np.linspace(0, logits.shape[1] - 1, tiny.COLUMNS).astype(int)
    golden = GOLDEN[f"{name}/columns"]
    for each in (logits, single):
        error = np.sqrt(np.mean((each[:, columns] - golden) ** 2)) / golden.std()
        assert error < allowed
