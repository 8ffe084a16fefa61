"""Embeddings: hidden states of transformers, pooled, for OpenAI's own client and beside others."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tiny
from serving_tiny import NAME, Ask

from sparity_edge import Generator, SamplingParams
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.model.model import Model
from sparity_edge.model.opening import open_packed

pytest.importorskip("uvicorn", reason="the extra [server] is not installed")
from sparity_edge.generation.sequence import sequence_of
from sparity_edge.server.embeddings import hidden, pooling
from sparity_edge.server.embeddings.pooling import PooledTexts
from sparity_edge.server.scheduler import Scheduler
from sparity_edge.server.tickets import ClosingError, QueueFullError

openai = pytest.importorskip("openai", reason="the extra [test] is not installed")
GOLDEN = np.load(Path(__file__).resolve().parents[1] / "golden" / "hidden.npz")
CASES = sorted({name.partition("/")[0] for name in GOLDEN})
PATH = "/v1/embeddings"
Vector = npt.NDArray[np.float32]


def pooled(model: Model, ids: list[int], last: bool) -> Vector:
    texts = PooledTexts([ids], last, lambda _: None)
    while not texts.read_a_chunk(model):
        pass
    return texts.vectors[0]


def expected(generator: Generator, text: str, last: bool = False) -> Vector:
    vector = pooled(generator.loaded.model, generator.encode(text), last)
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("case", CASES)
def test_states_are_those_of_transformers(
    case: str, checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = tiny.ids_of(case)
    with Generator.load(checkpoint(case), dtype="f32", threads=2) as generator:
        model = generator.loaded.model
        plain = Model(open_packed(generator.path), ReferenceMachine(), 64)
        for last in (False, True):
            golden = GOLDEN[f"{case}/{'last' if last else 'mean'}"]
            allowed = 1e-5 * np.abs(golden).max()
            for each in (model, plain):
                assert np.abs(pooled(each, ids, last) - golden).max() < allowed
        monkeypatch.setattr(hidden, "CHUNK", 7)
        assert np.abs(pooled(model, ids, last) - golden).max() < allowed


def test_vectors_of_the_real_client(client: Any, generator: Generator) -> None:
    texts = ["hello there", "a b c"]
    for form in ("float", "base64"):
        answer = client.embeddings.create(model=NAME, input=texts, encoding_format=form)
        for entry, text in zip(answer.data, texts, strict=True):
            found = entry.embedding
            if form == "base64":  # asked for by name, it is handed out as it is
                found = np.frombuffer(base64.b64decode(found), "<f4")
            assert np.allclose(found, expected(generator, text), atol=1e-6)
    assert answer.usage.prompt_tokens == sum(len(generator.encode(each)) for each in texts)
    (entry,) = client.embeddings.create(model=NAME, input=texts[0]).data
    assert np.allclose(entry.embedding, expected(generator, texts[0]), atol=1e-6)


def test_ids_pooling_and_length(ask: Ask, generator: Generator) -> None:
    ids = generator.encode("hello there")
    body = {"input": [ids, ids[:1]], "pooling": "last", "normalize": False, "dimensions": None}
    answer = ask(PATH, body)[1]
    vectors = [np.array(each["embedding"], np.float32) for each in answer["data"]]
    model = generator.loaded.model
    assert np.allclose(vectors[0], pooled(model, ids, True), atol=1e-5)
    assert np.allclose(vectors[1], pooled(model, ids[:1], True), atol=1e-5)
    assert (answer["pooling"], answer["normalized"]) == ("last", False)
    one = ask(PATH, {"input": ids})[1]["data"]
    assert np.allclose(one[0]["embedding"], expected(generator, "hello there"), atol=1e-6)


def test_answers_and_vectors_beside_each_other_are_those_alone(
    scheduler: Scheduler, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden, "CHUNK", 7)
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    alone = generator.generate([5, 6, 7], params).token_ids
    ids = [[3 + index % 90 for index in range(length)] for length in (40, 3)]
    vectors = [pooled(generator.loaded.model, each, False) for each in ids]
    steps, told = [], threading.Semaphore(0)

    def listen(step: Any) -> None:
        steps.append(step)
        if step.finish_reason:
            told.release()

    requests = [PooledTexts(ids, False, lambda _: told.release()) for _ in range(2)]
    scheduler.submit(sequence_of(scheduler.loaded, [5, 6, 7], params), listen)
    for each in requests:
        scheduler.submit_texts(each)
    assert all(told.acquire(timeout=30) for _ in range(3))
    assert tuple(step.token_id for step in steps) == alone
    for each in requests:
        assert all(np.array_equal(*pair) for pair in zip(each.vectors, vectors, strict=True))


def test_a_request_may_be_cancelled_fail_or_be_refused(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = generator.twin()
    scheduler = Scheduler(twin.loaded, most_waiting=2)
    told: list[BaseException | None] = []
    texts = [PooledTexts([[5]], False, told.append) for _ in range(4)]
    with twin.loaded.busy:
        scheduler.submit_texts(PooledTexts([[5]], False, lambda _: None))  # is being read
        while len(scheduler._texts):
            threading.Event().wait(0.001)
        texts[0].cancel()
        scheduler.submit_texts(texts[0])
        scheduler.submit_texts(texts[1])
        with pytest.raises(QueueFullError):
            scheduler.submit_texts(texts[2])

        def fail(*_: Any) -> Any:
            raise ValueError("broken")

        monkeypatch.setattr(pooling, "hidden_states", fail)
    while len(told) < 1:
        threading.Event().wait(0.001)
    assert [str(each) for each in told] == ["broken"]
    scheduler.close()
    with pytest.raises(ClosingError):
        scheduler.submit_texts(texts[3])
    twin.close()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"input": []}, "input has 0 texts"),
        ({"input": ["a", ""]}, "input.1 is empty"),
        ({"input": "a " * 5000}, "input.0 has .* tokens and the context holds"),
        ({"input": [1 << 40]}, "1099511627776"),
        ({"dimensions": 3}, "dimensions=3 is refused: vectors of this model have"),
        ({"encoding_format": "hex"}, 'encoding_format="hex"'),
        ({"pooling": "max"}, 'pooling="max"'),
    ],
)
def test_what_cannot_be_honoured_is_a_400(ask: Ask, body: dict[str, Any], sentence: str) -> None:
    status, answer = ask(PATH, {"input": "hello", **body})
    assert status == 400
    assert re.search(sentence, answer["error"]["message"])
