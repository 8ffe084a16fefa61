"""Tools over Anthropic's protocol: its client, and a tiny model that follows a script."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import tool_templates as templates
from serving_tiny import KEY, NAME, Ask, Say

from sparity_edge.server.messages.bodies import CountBody
from sparity_edge.server.messages.turns import turns_of

anthropic = pytest.importorskip("anthropic", reason="the extra [test] is not installed")
TALK = [{"role": "user", "content": "Hi"}]
TOOLS = [{"name": "f", "input_schema": {"type": "object"}}]
CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
ASKED = {"model": NAME, "messages": TALK, "tools": TOOLS, "max_tokens": 150}
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sun"}


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=address, api_key=KEY, max_retries=0) as opened:
        yield opened


def test_a_round_trip_with_the_real_client(client: Any, say: Say) -> None:
    say(f"Wait. {CALL}")
    message = client.messages.create(**ASKED)
    text, call = message.content
    assert (message.stop_reason, text.text) == ("tool_use", "Wait.")
    assert (call.type, call.name, call.input) == ("tool_use", "f", {"a": 1})
    say("Sunny.")
    result = {**RESULT, "tool_use_id": call.id}
    answer = {"role": "assistant", "content": message.content}
    talk = [*TALK, answer, {"role": "user", "content": [result]}]
    message = client.messages.create(**{**ASKED, "messages": talk}, tool_choice={"type": "none"})
    assert (message.stop_reason, message.content[0].text) == ("end_turn", "Sunny.")


def test_the_real_client_adds_a_stream_up(client: Any, say: Say) -> None:
    for said, kinds in (
        (f"So{CALL}\n{CALL}", ["text", "tool_use", "tool_use"]),
        (CALL, ["tool_use"]),
    ):
        say(said)
        with client.messages.stream(**ASKED) as stream:
            for _ in stream:
                pass
            message = stream.get_final_message()
        assert [each.type for each in message.content] == kinds
        assert message.content[-1].input == {"a": 1}
        assert message.stop_reason == "tool_use"


def test_one_call_at_most_if_asked_for(client: Any, say: Say) -> None:
    say(CALL + CALL)
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    assert len(client.messages.create(**ASKED, tool_choice=choice).content) == 1


def test_a_call_that_has_to_be_made_keeps_to_its_schema(client: Any, say: Say) -> None:
    schema = {"type": "object", "properties": {"level": {"enum": [1, 2]}}, "required": ["level"]}
    tools = [{"name": "f", "input_schema": {**schema, "additionalProperties": False}}]
    say(None, templates.HERMES)
    for kind in ({"type": "any"}, {"type": "tool", "name": "f"}):
        choice = {**kind, "disable_parallel_tool_use": True}
        asked = {**ASKED, "tools": tools, "tool_choice": choice, "max_tokens": 120}
        (call,) = client.messages.create(**asked).content
        assert call.input["level"] in (1, 2)


def test_a_text_that_follows_a_schema(client: Any) -> None:
    schema = {"type": "object", "properties": {"level": {"enum": [1, 2]}}, "required": ["level"]}
    form = {"type": "json_schema", "schema": {**schema, "additionalProperties": False}}
    asked = {**ASKED, "tools": [], "extra_body": {"output_config": {"format": form}}}
    assert json.loads(client.messages.create(**asked).content[0].text)["level"] in (1, 2)


def test_blocks_become_turns() -> None:
    error = {**RESULT, "content": [{"type": "text", "text": "no"}], "is_error": True}
    talk = [
        *TALK,
        {"role": "assistant", "content": [{"type": "text", "text": "So"}]},
        {"role": "assistant", "content": [USE]},
        {"role": "user", "content": [error, {"type": "text", "text": "a"}]},
        {"role": "user", "content": "b"},
    ]
    turns = turns_of(CountBody.model_validate({"messages": talk}))
    assert [each["role"] for each in turns] == ["user", "assistant", "tool", "user"]
    assert (turns[1]["content"], turns[1]["tool_calls"][0]["id"]) == ("So", "toolu_1")
    assert (turns[2]["content"], turns[2]["name"]) == ("Error: no", "f")
    assert turns[3]["content"] == "a\nb"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            {"messages": [{"role": "user", "content": [USE]}]},
            "messages.0.content.0.type='tool_use'",
        ),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name goes with"),
        ({"tool_choice": {"type": "tool", "name": "g"}}, "tool_choice names 'g'"),
        ({"tools": [{"name": "f", "input_schema": {"type": "array"}}]}, "of type object"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools.0.type="),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
            "tools and output_config.format do not go together",
        ),
        ({"tools": TOOLS * 2}, "two functions of the name 'f'"),
    ],
)
def test_what_cannot_be_honoured_is_a_400(
    ask: Ask, say: Say, body: dict[str, Any], sentence: str
) -> None:
    say(None)
    status, answer = ask("/v1/messages", {**ASKED, **body})
    assert (status, answer["type"]) == (400, "error")
    assert re.search(sentence, answer["error"]["message"])
