"""Requests with settings of the dial of their own: each gets the bits that it gets alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sparity_edge import Generator, SamplingParams

pytest.importorskip("fastapi", reason="the extra [server] is not installed")
from fastapi.testclient import TestClient

from sparity_edge.server.app import make_app
from sparity_edge.server.scheduler import Scheduler

TEXT, HEADER = "/v1/completions", "x-sparity-plan"
# Each beside the place on the dial that the answer names.
ASKED = (
    ({}, "dense"),
    ({"sparsity": 0.4}, "by-hand:0.4"),
    ({"plan": "by-hand", "level": 0.6}, "by-hand@0.6"),
    ({"sparsity": 0.2}, "by-hand:0.2"),
    ({"plan": "by-hand", "sparsity": 0}, "dense"),
)
PROMPT = [5 + (7 * k) % 200 for k in range(40)]
BODY = {"max_tokens": 12, "temperature": 0, "ignore_eos": True, "logprobs": 1}


@pytest.fixture(scope="module")
def generator(planned: Path) -> Iterator[Generator]:
    with Generator.load(planned, threads=2) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def http(generator: Generator) -> Iterator[TestClient]:
    made = Scheduler(generator.twin().loaded)
    with TestClient(make_app(made, "tiny")) as client:
        yield client
    made.loaded.close()


def alone(generator: Generator, asked: dict[str, Any], prompt: list[int]) -> Any:
    generator.loaded.model.kv_cache.trim(0)
    generator.set_plan(asked.get("plan"), sparsity=asked.get("sparsity"), level=asked.get("level"))
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, logprobs=True)
    return generator.generate(prompt, params)


def test_settings_side_by_side_are_as_alone(generator: Generator, http: TestClient) -> None:
    # Prompts that begin alike: what one setting has read is taken over by the next one.
    asked = [
        (setting, name, [*PROMPT, *range(9, 9 + 20 * (turn % 2))])
        for turn in range(2)
        for setting, name in ASKED
    ]
    expected = [alone(generator, setting, prompt) for setting, _, prompt in asked]
    assert len({each.logprobs for each in expected}) > len(ASKED)  # they differ
    bodies = [{**BODY, "prompt": prompt, **setting} for setting, _, prompt in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda body: http.post(TEXT, json=body), bodies))
    for (_, name, _), answer, own in zip(asked, answers, expected, strict=True):
        assert answer.headers[HEADER] == name
        content = answer.json()
        assert content["choices"][0]["text"] == own.text
        assert content["choices"][0]["logprobs"]["token_logprobs"] == list(own.logprobs)
        # Of a pass it is the mean over those that were decoded together.
        share = pytest.approx(own.stats.active_weight_fraction, abs=0.01)
        assert content["usage"]["active_weight_fraction"] == share


def test_a_stream_says_its_setting(http: TestClient) -> None:
    body = {**BODY, "prompt": "a", "sparsity": 0.4, "stream": True}
    assert http.post(TEXT, json=body).headers[HEADER] == "by-hand:0.4"


def test_plans_are_listed_for_a_dial(http: TestClient) -> None:
    answer = http.get("/v1/plans").json()
    (plan,) = answer["data"]
    assert (answer["default"], plan["id"], plan["most_sparsity"]) == ("dense", "by-hand", 0.5)
    kls = {each["sparsity"]: each["kl"] for each in plan["positions"]}
    assert kls[0.0] == 0
    assert kls[0.2] == pytest.approx(0.01)
    assert kls[0.5] is None  # beyond what was measured
    assert plan["positions"][-1]["level"] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"sparsity": 1.5}, "sparsity=1.5 is not a number from 0 to 0.9"),
        ({"sparsity": 0.7}, "plan by-hand reaches from 0 to 0.50"),
        ({"sparsity": 0.2, "level": 0.2}, "give one of them"),
        ({"sparsity": "much"}, 'sparsity="much" is refused'),
        ({"plan": "../x", "sparsity": 0.2}, "plan=../x is none of by-hand"),
        ({"plan": "by-hand"}, "say how many with sparsity"),
    ],
)
def test_what_the_dial_does_not_have_is_a_400(
    http: TestClient, asked: dict[str, Any], sentence: str
) -> None:
    answer = http.post(TEXT, json={**BODY, "prompt": "a", **asked})
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]["message"]
