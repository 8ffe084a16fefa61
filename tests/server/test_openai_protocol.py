"""OpenAI's protocol: its own client is understood, and what is not served is refused by name."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving_tiny import KEY, NAME, Ask

from sparity_edge import Generator, SamplingParams
from sparity_edge.server import guard
from sparity_edge.server.scheduler import Scheduler

openai = pytest.importorskip("openai", reason="the extra [test] is not installed")
USAGE = Path(__file__).resolve().parents[2] / "docs" / "usage.md"
TALK = [{"role": "user", "content": "hello there"}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def test_chat_of_the_real_client(client: Any, generator: Generator) -> None:
    params = SamplingParams(temperature=0, max_tokens=8)
    expected = generator.chat(TALK, params)
    answer = client.chat.completions.create(
        model=NAME, messages=TALK, temperature=0, max_tokens=8, seed=1, user="somebody"
    )
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == expected.finish_reason
    assert answer.usage.completion_tokens == expected.stats.generated_tokens
    assert answer.usage.prompt_tokens == expected.stats.prompt_tokens
    assert answer.usage.completion_tokens_details.accepted_prediction_tokens >= 0


def test_the_example_of_the_page_runs(address: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", USAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [each for each in blocks if "OpenAI(" in each]
    here = block.replace("http://127.0.0.1:8080", address).replace('"none"', repr(KEY))
    known: dict[str, Any] = {}
    exec(compile(here, "docs/usage.md", "exec"), known)
    assert known["answer"].choices[0].message.role == "assistant"


def test_streamed_chat_is_the_same_text(client: Any) -> None:
    asked = {"model": NAME, "messages": TALK, "temperature": 0, "max_tokens": 8, "n": 2}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    for index, choice in enumerate(whole.choices):
        own = [each.choices[0] for each in chunks[:-1] if each.choices[0].index == index]
        assert own[0].delta.role == "assistant"
        assert "".join(each.delta.content or "" for each in own) == choice.message.content
        assert own[-1].finish_reason == choice.finish_reason
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({each.id for each in chunks}) == 1


def test_completion_of_ids_with_logprobs(client: Any, generator: Generator) -> None:
    asked = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, top_logprobs=2)
    expected = generator.generate([5, 6, 7], asked)
    answer = client.completions.create(
        model=NAME, prompt=[5, 6, 7], max_tokens=4, temperature=0, logprobs=2,
        extra_body={"ignore_eos": True},
    )  # fmt: skip
    found = answer.choices[0]
    assert found.text == expected.text
    assert found.logprobs.token_logprobs == pytest.approx(list(expected.logprobs))
    assert len(found.logprobs.top_logprobs) == 4
    assert all(found.logprobs.top_logprobs)


def test_choices_have_seeds_of_their_own(ask: Ask) -> None:
    body = {"prompt": "a", "n": 3, "seed": 5, "temperature": 2, "max_tokens": 12, "top_k": 0}
    texts = [[each["text"] for each in ask(TEXT, body)[1]["choices"]] for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 3


def test_models_health_and_metrics(ask: Ask, scheduler: Scheduler) -> None:
    assert [each["id"] for each in ask("/v1/models")[1]["data"]] == [NAME]
    assert ask("/health")[1]["status"] == "ok"
    generated = f"sparity_edge_generated_tokens_total {scheduler.counts.generated_tokens:.1f}"
    shown = ask("/metrics")[1]
    assert generated in shown
    assert f"sparity_edge_drafted_tokens_total {scheduler.counts.drafted_tokens:.1f}" in shown


def test_tokens_there_and_back(ask: Ask, generator: Generator) -> None:
    ids = ask("/tokenize", {"content": "hello there"})[1]["tokens"]
    assert ids == generator.tokenizer.encode("hello there", add_special_tokens=False)
    assert ask("/detokenize", {"tokens": ids})[1]["content"] == generator.tokenizer.decode(ids)
    assert ask("/tokenize", {"messages": TALK})[1]["tokens"] == generator.encode(TALK)


@pytest.mark.parametrize(
    ("body", "field", "sentence"),
    [
        ({"functions": [{"name": "f"}]}, "functions", "functions=.* is not served here"),
        ({"response_format": {"type": "xml"}}, "response_format", "xml"),
        ({"n": 99}, "n", "n=99 is refused"),
        ({"temperature": "hot"}, "temperature", 'temperature="hot" is refused'),
        ({"messages": []}, "messages", "messages="),
        ({"messages": [{"content": "x"}]}, "messages.0.role", "role is missing"),
        ({"stop": ["a", 1]}, "stop.1", "stop.1=1 is refused"),
        ({"x" * 1000: 1}, "x" * 57 + "...", "is not served here"),
        ({"temperature": -1}, None, "temperature=-1"),
        ({"top_logprobs": 3}, None, "needs logprobs=true"),
        ({"logit_bias": {"x": 1}}, None, "no token id"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, None, "give one of them"),
        ({"messages": [{"role": "user", "content": "a " * 5000}]}, None, "context holds"),
    ],
)
def test_what_cannot_be_honoured_is_a_400(
    ask: Ask, body: dict[str, Any], field: str | None, sentence: str
) -> None:
    status, answer = ask(CHAT, {"messages": TALK, **body})
    assert status == 400
    assert answer["error"]["param"] == field
    assert answer["error"]["type"] == "invalid_request_error"
    assert re.search(sentence, answer["error"]["message"])


def test_what_is_no_json_or_no_path(ask: Ask) -> None:
    for body in (b"{", b"[]", b"\x00\xff"):
        status, answer = ask(CHAT, body)
        assert (status, answer["error"]["param"]) == (400, None)
        assert "The body is no JSON object" in answer["error"]["message"]
    for body in (b"[" * 100_000, b'{"seed": %s}' % (b"9" * 5000)):
        status, answer = ask(CHAT, body)
        assert status == 400
        assert "send another" in answer["error"]["message"]
    assert "There is nothing at '/v1/nothing'" in ask("/v1/nothing")[1]["error"]["message"]
    status, answer = ask(CHAT)
    assert (status, "does not take GET" in answer["error"]["message"]) == (405, True)
    status, answer = ask(CHAT, {"messages": TALK, "model": "gpt-9"})
    assert (status, answer["error"]["type"]) == (404, "not_found_error")


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_no_page_loads_scripts_from_elsewhere(ask: Ask, path: str) -> None:
    assert ask(path)[0] == 404


def test_key_host_and_length_are_looked_at_first(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask("/v1/models", Authorization="Bearer wrong")[0] == 401
    assert ask("/health", Authorization="")[0] == 200
    status, answer = ask("/v1/models", Host="evil.example:8080")
    assert status == 403
    assert "evil.example" in answer["error"]["message"]
    for right, other in ((KEY, "wrong"), ("wrong", KEY)):  # x-api-key goes before Authorization
        headers = {"X-Api-Key": right, "Authorization": f"Bearer {other}"}
        assert ask("/v1/models", **headers)[0] == (200 if right == KEY else 401)
    monkeypatch.setattr(guard, "MAX_BODY", 50)
    assert ask(CHAT, {"messages": TALK * 5})[0] == 413


def test_head_is_get_without_a_body(address: str) -> None:
    for path in ("/health", "/v1/models"):
        headers = {"Authorization": f"Bearer {KEY}"}
        request = urllib.request.Request(address + path, headers=headers, method="HEAD")
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert (answer.status, answer.read()) == (200, b"")
            assert int(answer.headers["Content-Length"]) > 0


def begun(address: str, key: str, header: str) -> socket.socket:
    """A connection on which the headers of a chat have been sent."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
    connection.sendall(f"{head}{header}\r\n\r\n".encode())
    return connection


def test_a_body_without_length_is_bounded_too(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MAX_BODY", 50)
    with begun(address, KEY, "Transfer-Encoding: chunked") as connection:
        connection.sendall(b"40\r\n" + b"x" * 64 + b"\r\n")
        assert b"413" in connection.recv(4096).split(b"\r\n")[0]


@pytest.mark.parametrize(("key", "status"), [(KEY, b"413"), ("wrong", b"401")])
def test_a_client_that_sends_on_gets_its_refusal(
    address: str, monkeypatch: pytest.MonkeyPatch, key: str, status: bytes
) -> None:
    monkeypatch.setattr(guard, "MAX_BODY", 50)
    with begun(address, key, "Content-Length: 200000") as connection:
        for _ in range(4):  # the server has answered long before the last of it
            connection.sendall(b"x" * 50_000)
            time.sleep(0.02)
        assert status in connection.makefile("rb").read().split(b"\r\n")[0]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_is_dropped(
    address: str, scheduler: Scheduler, stream: bool
) -> None:
    counts = scheduler.counts
    asked, dropped = counts.requests, counts.cancelled
    host, port = address.removeprefix("http://").split(":")
    body = json.dumps({"prompt": "a", "max_tokens": 200, "ignore_eos": True, "stream": stream})
    head = (
        f"POST {TEXT} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with scheduler.loaded.busy:  # the model is at work, or the answer would be over too soon
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall((head + body).encode())
            eventually(lambda: counts.requests == asked + 1)
        eventually(lambda: any(each.cancelled for each in scheduler._running))
    eventually(lambda: counts.cancelled == dropped + 1)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds, 30 seconds at most."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
