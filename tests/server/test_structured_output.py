"""Answers that keep to a schema, a regex or a grammar, and what is said of those that cannot be."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import pytest
from pydantic import BaseModel
from serving_tiny import NAME, Ask

openai = pytest.importorskip("openai", reason="the extra [test] is not installed")
pytest.importorskip("llguidance", reason="the extra [server] is not installed")

TALK = [{"role": "user", "content": "hello there"}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


class Pet(BaseModel):
    """What the client asks for."""

    kind: Literal["cat", "dog"]
    healthy: bool | None


def test_the_real_client_parses_what_it_asked_for(client: Any) -> None:
    answer = client.chat.completions.parse(
        model=NAME, messages=TALK, response_format=Pet, temperature=1, seed=3, n=2
    )
    for choice in answer.choices:
        assert isinstance(choice.message.parsed, Pet)
        assert choice.finish_reason == "stop"
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model=NAME, messages=TALK, response_format=Pet, max_tokens=4)


def test_any_object_regex_and_grammar(ask: Ask) -> None:
    plain = {"model": NAME, "temperature": 1, "seed": 1, "max_tokens": 100}
    asked = {"messages": TALK, "logit_bias": {"97": 5.0}, **plain}  # towards the closing bracket
    status, found = ask(CHAT, {**asked, "response_format": {"type": "json_object"}})
    assert status == 200
    assert isinstance(json.loads(found["choices"][0]["message"]["content"]), dict)
    status, found = ask(CHAT, {**asked, "regex": "(ab){2}"})
    assert (status, found["choices"][0]["message"]["content"]) == (200, "abab")
    status, found = ask(TEXT, {"prompt": "hello", "grammar": 'start: "a" "b"', **plain})
    assert (status, found["choices"][0]["text"]) == (200, "ab")
    assert found["usage"]["completion_tokens"] <= 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.*json_schema.* is missing"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.*schema is missing",
        ),
        ({"regex": "(("}, "regex cannot be followed: .*unclosed group"),
        ({"grammar": "start: foo"}, "grammar cannot be followed: .*unknown name"),
        ({"regex": "a", "grammar": 'start: "a"'}, "regex and grammar were given together"),
        ({"regex": "a", "ignore_eos": True}, "ignore_eos"),
    ],
)
def test_what_cannot_be_followed_is_refused(ask: Ask, more: dict[str, Any], words: str) -> None:
    status, found = ask(CHAT, {"messages": TALK, **more})
    assert status == 400
    message = found["error"]["message"]
    assert re.search(words, message), message
    assert "\n" not in message


def test_what_takes_too_much_on_the_way_ends_alone(ask: Ask) -> None:
    """A grammar of which only the second token is dear, beside an answer to somebody else."""
    hard = " & ".join(f"/(.*{a}.{{{n}}}b.*)/" for n, a in enumerate("acdefghij", 12))
    plain = {"messages": TALK, "temperature": 0, "max_tokens": 60}
    expected = ask(CHAT, plain)[1]["choices"][0]["message"]["content"]
    with ThreadPoolExecutor() as pool:
        other = pool.submit(ask, CHAT, plain)
        status, found = ask(CHAT, {**plain, "grammar": f'start: "x" "y" A\nA: {hard}'})
        assert other.result()[1]["choices"][0]["message"]["content"] == expected
    assert status == 400
    assert "grammar cannot be followed: " in found["error"]["message"]
