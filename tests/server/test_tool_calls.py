"""Tools and reasoning over OpenAI's protocol: its client, and a tiny model that follows a script.

The model's own choice of tokens is replaced by a script; everything else is as it is served.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import tool_templates as templates
from serving_tiny import NAME, Ask, Say

openai = pytest.importorskip("openai", reason="the extra [test] is not installed")
CHAT = "/v1/chat/completions"
TALK = [{"role": "user", "content": "Hi"}]
TOOLS = [{"type": "function", "function": {"name": "f"}}]  # the context has 256 tokens
CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'


def asked(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(
        **{"model": NAME, "messages": TALK, "tools": TOOLS, **more}
    ).choices[0]


def test_a_round_trip_with_the_real_client(client: Any, say: Say) -> None:
    say(f"Wait. {CALL}")
    choice = asked(client)
    message = choice.message
    assert (choice.finish_reason, message.content) == ("tool_calls", "Wait.")
    (call,) = message.tool_calls
    assert (call.type, call.function.name) == ("function", "f")
    assert json.loads(call.function.arguments) == {"a": 1}
    say("Sunny.")
    result = {"role": "tool", "tool_call_id": call.id, "content": "sun"}
    choice = asked(client, messages=[*TALK, message.model_dump(), result], tool_choice="none")
    assert (choice.finish_reason, choice.message.content) == ("stop", "Sunny.")
    assert choice.message.tool_calls is None


def test_the_real_client_adds_a_stream_up(client: Any, say: Say) -> None:
    say(f"So{CALL}\n{CALL}")
    with client.chat.completions.stream(model=NAME, messages=TALK, tools=TOOLS) as stream:
        done = [each for each in stream if each.type == "tool_calls.function.arguments.done"]
        choice = stream.get_final_completion().choices[0]
    assert [each.index for each in done] == [0, 1]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "So")
    ids = {each.id for each in choice.message.tool_calls}
    assert len(ids) == 2
    for each in choice.message.tool_calls:
        assert (each.function.name, each.function.arguments) == ("f", '{"a": 1}')


def test_one_call_at_most_if_asked_for(client: Any, say: Say) -> None:
    say(CALL + CALL)
    both, one = (asked(client, parallel_tool_calls=each, n=2) for each in (True, False))
    assert [len(each.message.tool_calls) for each in (both, one)] == [2, 1]
    assert one.finish_reason == "tool_calls"


LEVEL = {"type": "object", "properties": {"level": {"enum": [1, 2]}}, "required": ["level"]}
NAMED = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize("template", [templates.HERMES, templates.MISTRAL, templates.LLAMA3])
@pytest.mark.parametrize("choice", ["required", NAMED])
def test_a_call_that_has_to_be_made_keeps_to_its_schema(
    client: Any, say: Say, template: str, choice: Any
) -> None:
    say(None, template)
    tools = [tool(parameters=LEVEL)[0], tool(name="g", parameters=LEVEL)[0]]
    found = asked(client, tools=tools, tool_choice=choice, parallel_tool_calls=False, seed=1)
    (call,) = found.message.tool_calls
    assert found.finish_reason == "tool_calls"
    assert call.function.name in ("f", "g") if choice == "required" else call.function.name == "f"
    assert json.loads(call.function.arguments)["level"] in (1, 2)


def test_what_is_no_call_is_content(client: Any, say: Say) -> None:
    text = CALL.replace("f", "g")
    say(text)
    choice = asked(client)
    assert (choice.finish_reason, choice.message.content) == ("stop", text)
    cut = asked(client, max_tokens=5)
    assert (cut.finish_reason, cut.message.tool_calls) == ("length", None)
    assert text.startswith(cut.message.content)
    say(CALL)
    assert asked(client, tools=openai.NOT_GIVEN).message.content == CALL


def test_reasoning_is_split_when_asked(client: Any, say: Say) -> None:
    text = "Hm.\n</think>\n\nYes"

    def reasoned(tools: Any = openai.NOT_GIVEN, **extra: Any) -> tuple[str | None, str | None]:
        whole = asked(client, tools=tools, extra_body=extra).message
        chunks = client.chat.completions.create(
            model=NAME, messages=TALK, tools=tools, stream=True, extra_body=extra
        )
        deltas = [chunk.choices[0].delta for chunk in chunks]
        found = getattr(whole, "reasoning_content", None)
        assert "".join(each.content or "" for each in deltas) == (whole.content or "")
        parts = [getattr(each, "reasoning_content", None) or "" for each in deltas]
        assert "".join(parts) == (found or "")
        return found, whole.content

    say(text, templates.THINKING)
    assert reasoned() == (None, text)
    assert reasoned(reasoning_format="none") == (None, text)
    assert reasoned(reasoning_format="auto") == ("Hm.", "Yes")
    assert reasoned(include_reasoning=True) == ("Hm.", "Yes")
    assert reasoned(include_reasoning=False) == (None, "Yes")
    say(f"{CALL}?\n</think>\n{CALL}", templates.THINKING)
    assert reasoned(TOOLS, reasoning_format="deepseek") == (f"{CALL}?", None)
    assert reasoned(TOOLS) == (None, f"{CALL}?\n</think>\n")


DEEP: dict[str, Any] = {"type": "object"}
for _ in range(40):
    DEEP = {"type": "object", "properties": {"a": DEEP}}
OTHER = {"type": "function", "function": {"name": "weather"}}


def tool(**function: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": "f", **function}}]


def made(**call: Any) -> list[dict[str, Any]]:
    function = {"name": "weather", "arguments": "{}"}
    calls = [{"id": "a", "type": "function", "function": {**function, **call}}]
    return [*TALK, {"role": "assistant", "tool_calls": calls}]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": tool(name="a b")}, "tools.0.function.name"),
        ({"tools": tool(name="a" * 65)}, "tools.0.function.name"),
        ({"tools": tool() * 129}, "tools="),
        ({"tools": tool() * 2}, "two functions of the name 'f'"),
        ({"tools": tool(parameters=DEEP)}, "nested more than 32 deep"),
        ({"tools": tool(parameters={"type": "array"})}, "are of type object"),
        ({"tools": tool(), "tool_choice": OTHER}, "names 'weather', which is not among"),
        ({"tool_choice": "required"}, "there are no tools"),
        (
            {"tools": tool(parameters={"$ref": "#/no"}), "tool_choice": "required"},
            "tools cannot be",
        ),
        ({"messages": made(arguments="{")}, "messages.1.tool_calls.0.function.arguments"),
        ({"messages": made(arguments="[]")}, "no JSON object"),
        ({"messages": [*TALK, {"role": "tool", "content": "x"}]}, "tool_call_id is missing"),
        (
            {"messages": [{**TALK[0], "tool_calls": made()[1]["tool_calls"]}]},
            "tool_calls are of the assistant only",
        ),
    ],
)
def test_tools_that_cannot_be_served_are_a_400(
    ask: Ask, say: Say, body: dict[str, Any], sentence: str
) -> None:
    say("")
    status, answer = ask(CHAT, {"messages": TALK, **body})
    assert status == 400
    assert sentence in answer["error"]["message"]


def test_a_template_is_told_of_tools_in_the_way_that_is_asked_for(client: Any, say: Say) -> None:
    say("<code>f(1)</code>", templates.SMOLLM3)
    tools = tool(parameters={"type": "object", "properties": {"a": {}}})
    prompts = [
        asked_usage(client, tools=tools, extra_body={"chat_template_kwargs": each})
        for each in ({}, {"python_tools": ["def f(a): ..."]})
    ]
    assert [each[0] for each in prompts] == ['{"a": 1}'] * 2
    assert prompts[0][1] > prompts[1][1]


def asked_usage(client: Any, **more: Any) -> tuple[str, int]:
    """The arguments of the first call, and how long the prompt was."""
    answer = client.chat.completions.create(model=NAME, messages=TALK, **more)
    (call,) = answer.choices[0].message.tool_calls
    return call.function.arguments, answer.usage.prompt_tokens


def test_a_model_without_tools_refuses_them(ask: Ask, say: Say) -> None:
    say("", templates.PLAIN)
    status, answer = ask(CHAT, {"messages": TALK, "tools": TOOLS})
    assert status == 400
    assert "no syntax of tool calls that is known here" in answer["error"]["message"]


def test_tokens_of_a_conversation_with_tools(ask: Ask, say: Say) -> None:
    say("")
    body = {"messages": made(name="f"), "tools": tool()}
    count = ask(CHAT, {**body, "max_tokens": 1})[1]["usage"]["prompt_tokens"]
    assert len(ask("/tokenize", body)[1]["tokens"]) == count
    assert len(ask("/tokenize", {"messages": TALK})[1]["tokens"]) < count
    assert (
        "with messages only"
        in ask("/tokenize", {"content": "x", **body, "messages": None})[1]["error"]["message"]
    )


@pytest.mark.parametrize(
    ("choice", "strict"), [("auto", True), ("auto", False), ("required", True)]
)
def test_odd_schemas_are_an_answer_or_a_400(ask: Ask, say: Say, choice: str, strict: bool) -> None:
    say("ok" if choice == "auto" else None)
    body = {"messages": TALK, "max_tokens": 9, "tool_choice": choice}
    for odd in ({"\ud800": {}}, {"a": {"minimum": math.inf}}, {"a": {"$ref": "#/"}}, [], 1):
        tools = tool(strict=strict, parameters={"properties": odd, "x-guidance": 3})
        assert ask(CHAT, {**body, "tools": tools})[0] in (200, 400), odd
