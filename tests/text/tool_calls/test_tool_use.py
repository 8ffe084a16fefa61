"""What templates make of tools is found out by rendering; what they drop is written or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import tool_templates as templates

from sparity_edge.errors import OptionError
from sparity_edge.text.chat_template import ChatTemplate
from sparity_edge.text.tool_calls.syntaxes import syntax_of
from sparity_edge.text.tool_calls.tool_use import ToolUse

ARGUMENTS = {"city": "Bern"}
TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Hello"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call_123456",
                "type": "function",
                "function": {"name": "weather", "arguments": ARGUMENTS},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_123456", "name": "weather", "content": "Sunny"},
]


def render(source: str, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    return ChatTemplate(source).render(messages, tokens, variables=variables)


def use_of(source: str) -> ToolUse:
    return ToolUse(source, lambda messages, variables: render(source, messages, **variables))


@pytest.mark.parametrize(
    ("source", "call"),
    [
        (
            templates.HERMES,
            '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>',
        ),
        (
            templates.SMOLLM3,
            '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>',
        ),
        (templates.GRANITE, '<|tool_call|>[{"name": "weather", "arguments": {"city": "Bern"}}]'),
        (templates.MISTRAL, '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Bern"}}]'),
        (templates.MISTRAL_ARGS, '[TOOL_CALLS]weather[ARGS]{"city": "Bern"}'),
        (templates.LLAMA3, '{"name": "weather", "parameters": {"city": "Bern"}}'),
    ],
)
def test_tools_and_calls_reach_the_model(source: str, call: str) -> None:
    use = use_of(source)
    text = render(source, use.prepared(TALK), **use.offer([templates.WEATHER]))
    assert "Tells the weather." in text
    assert text.count(call) == 1
    assert "Sunny" in text


def test_a_template_of_one_call_at_once_gets_several_one_by_one() -> None:
    call = TALK[1]["tool_calls"][0]
    other = {"id": "b", "function": {"name": "clock", "arguments": {}}}
    said = {"role": "assistant", "content": "So", "tool_calls": [call, other]}
    results = [{**TALK[2], "tool_call_id": "b", "content": "Noon"}, TALK[2], {"role": "tool"}]
    talk = [TALK[0], said, *results, TALK[0]]
    found = use_of(templates.LLAMA3).prepared(talk)
    assert [each.get("content") for each in found] == [
        "Hello", "So", "Sunny", "", "Noon", None, "Hello",
    ]  # fmt: skip
    assert [each["tool_calls"][0]["id"] for each in found if "tool_calls" in each] == [
        "call_123456", "b",
    ]  # fmt: skip
    assert len(use_of(templates.HERMES).prepared(talk)) == len(talk)


def test_a_template_without_tools_is_refused() -> None:
    use = use_of(templates.PLAIN)
    with pytest.raises(OptionError, match="no syntax of tool calls that is known"):
        use.offer([templates.WEATHER])
    with pytest.raises(OptionError, match="no syntax of tool calls that is known"):
        use.prepared(TALK)
    use = use_of(templates.PLAIN + "{# <tool_call> #}")
    with pytest.raises(OptionError, match="does not know tools"):
        use.offer([templates.WEATHER])
    assert "<tool_call>" in use.prepared(TALK)[1]["content"]
    assert use.prepared(TALK[:1]) == TALK[:1]


def test_other_syntaxes_in_the_same_tags_are_unknown() -> None:
    assert syntax_of("<tool_call>\n<function=name>") is None
    assert syntax_of("<tool_call>name<arg_key>") is None
    assert syntax_of("ipython <function=name>") is None


def test_a_message_of_calls_needs_no_content() -> None:
    for absent in ({"content": None}, {}):
        said = {key: value for key, value in TALK[1].items() if key != "content"}
        talk = [TALK[0], {**said, **absent}, TALK[2]]
        assert render(templates.HERMES, talk) == render(templates.HERMES, TALK)
