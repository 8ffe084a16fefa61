"""Anthropic's protocol: its own client is understood, and what is not served is refused by name."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_tiny import KEY, NAME, Ask

from sparity_edge import Generator, SamplingParams
from sparity_edge.server.messages import routes
from sparity_edge.server.scheduler import Scheduler

anthropic = pytest.importorskip("anthropic", reason="the extra [test] is not installed")
MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
USAGE = Path(__file__).resolve().parents[2] / "docs" / "usage.md"
TALK = [{"role": "user", "content": "hello there"}]
GREEDY = {"temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=address, api_key=KEY, max_retries=0) as opened:
        yield opened


def test_a_message_of_the_real_client(client: Any, generator: Generator) -> None:
    kind = "be kind " * 5 + "to all"  # long enough to be kept
    turns = [{"role": "system", "content": kind}, *TALK]
    expected = generator.chat(turns, SamplingParams(max_tokens=8, **GREEDY))
    block = {"type": "text", "text": kind, "cache_control": {"type": "ephemeral"}}
    for system in (kind, [block]):
        answer = client.messages.create(
            model=NAME, messages=TALK, max_tokens=8, system=system, extra_body=GREEDY
        )
        assert answer.content[0].text == expected.text
        assert (answer.stop_reason, answer.stop_sequence) == ("max_tokens", None)
        usage = answer.usage
        read = usage.input_tokens + usage.cache_read_input_tokens
        assert (read, usage.output_tokens) == (expected.stats.prompt_tokens, 8)
    assert usage.cache_read_input_tokens > 0


def test_the_example_of_the_page_runs(address: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", USAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = [each for each in blocks if "Anthropic(" in each]
    here = block.replace("http://127.0.0.1:8080", address).replace('"none"', repr(KEY))
    known: dict[str, Any] = {}
    exec(compile(here, "docs/usage.md", "exec"), known)
    assert known["message"].role == "assistant"


def test_a_streamed_message_is_the_same_text(client: Any) -> None:
    asked = {"model": NAME, "messages": TALK, "max_tokens": 8, "extra_body": GREEDY}
    whole = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        last = stream.get_final_message()
    assert (last.stop_reason, last.usage.output_tokens) == ("max_tokens", 8)
    events = [each.type for each in client.messages.create(**asked, stream=True)]
    assert events[:2] == ["message_start", "content_block_start"]
    assert set(events[2:-3]) == {"content_block_delta"}
    assert events[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_silence_is_broken_by_pings(
    address: str, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "PING_SECONDS", 0.02)
    body = {"messages": TALK, "max_tokens": 1, "stream": True}
    request = urllib.request.Request(
        address + MESSAGES, json.dumps(body).encode(), {"Authorization": f"Bearer {KEY}"}
    )
    request.add_header("Content-Type", "application/json")
    with scheduler.loaded.busy:
        answer = urllib.request.urlopen(request, timeout=30)
        time.sleep(0.1)
    with answer:
        names = re.findall(r"^event: (\w+)$", answer.read().decode(), re.MULTILINE)
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert names.count("ping") > 2


def test_what_ends_a_message_is_told(client: Any, ask: Ask, generator: Generator) -> None:
    params = SamplingParams(max_tokens=8, **GREEDY)
    text = generator.chat(TALK, params).text
    answer = client.messages.create(
        model=NAME, messages=TALK, max_tokens=8, stop_sequences=["\0", text[3:5]], extra_body=GREEDY
    )
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", text[3:5])
    assert answer.content[0].text == text[: text.index(text[3:5])]
    body = {"messages": TALK, "max_tokens": 1 << 20, **GREEDY}
    assert ask(MESSAGES, body)[1]["stop_reason"] == "model_context_window_exceeded"


def test_tokens_are_counted(client: Any, generator: Generator) -> None:
    counted = client.messages.count_tokens(model=NAME, messages=TALK, system="be kind")
    turns = [{"role": "system", "content": "be kind"}, *TALK]
    assert counted.input_tokens == len(generator.encode(turns))
    parts = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]  # one turn
    merged = client.messages.count_tokens(model=NAME, messages=parts)
    assert merged.input_tokens == len(generator.encode([{"role": "user", "content": "a\nb"}]))


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        (MESSAGES, {"max_tokens": 0}, "max_tokens=0 is out of range"),
        (MESSAGES, {}, "max_tokens is missing"),
        (MESSAGES, {"max_tokens": 1, "temperature": -1}, "temperature=-1"),
        (MESSAGES, {"max_tokens": 1, "mcp_servers": []}, "mcp_servers=.* is not served here"),
        (MESSAGES, {"max_tokens": 1, "thinking": {"type": "enabled"}}, "thinking.type=.enabled"),
        (MESSAGES, {"max_tokens": 1, "stop_sequences": [""]}, 'stop_sequences.0="" is ref'),
        (COUNT, {"messages": []}, "messages=.* is refused"),
        (COUNT, {"messages": [{"role": "system", "content": "a"}]}, "messages.0.role="),
        (
            COUNT,
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            'messages.0.content.0=.*"image".* is refused',
        ),
        (COUNT, {"messages": [*TALK, {"role": "assistant", "content": "He"}]}, "messages.1.role="),
    ],
)
def test_what_cannot_be_honoured_has_its_shape(
    ask: Ask, path: str, body: dict[str, Any], sentence: str
) -> None:
    status, answer = ask(path, {"messages": TALK, **body})
    assert (status, answer["type"]) == (400, "error")
    assert answer["error"]["type"] == "invalid_request_error"
    assert re.search(sentence, answer["error"]["message"])


def test_other_refusals_have_its_shape(address: str, client: Any, ask: Ask) -> None:
    with pytest.raises(anthropic.NotFoundError, match="There is no model 'claude'"):
        client.messages.create(model="claude", messages=TALK, max_tokens=1)
    stranger = anthropic.Anthropic(base_url=address, api_key="wrong", max_retries=0)
    with stranger, pytest.raises(anthropic.AuthenticationError, match="x-api-key"):
        stranger.messages.create(model=NAME, messages=TALK, max_tokens=1)
    status, answer = ask(MESSAGES)
    assert (status, answer["type"]) == (405, "error")
