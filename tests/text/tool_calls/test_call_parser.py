"""Calls in the syntaxes of four families; what is none stays text, however it is cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparity_edge.text.tool_calls import parser as parsing
from sparity_edge.text.tool_calls.call import ToolCall
from sparity_edge.text.tool_calls.parser import CallParser
from sparity_edge.text.tool_calls.syntaxes import (
    GRANITE,
    HERMES,
    LLAMA3,
    MISTRAL,
    MISTRAL_ARGS,
    SMOLLM3,
    Syntax,
)

TOOLS = {"weather": ("city", "day"), "clock": ()}
BERN, CLOCK = ToolCall("weather", '{"city": "Bern"}'), ToolCall("clock", "{}")
SYNTAXES = (GRANITE, HERMES, SMOLLM3, MISTRAL, MISTRAL_ARGS, LLAMA3)
W = '{"name": "weather", "arguments": {"city": "Bern"}}'
P = W.replace("arguments", "parameters")


def parse(syntax: Syntax, *pieces: str) -> list[str | ToolCall]:
    """What is found, texts that follow each other as one."""
    parser = CallParser(syntax, TOOLS)
    found = [each for piece in pieces for each in parser.push(piece)] + parser.flush()
    joined: list[str | ToolCall] = []
    for each in found:
        last = joined[-1] if joined else None
        if isinstance(each, str) and isinstance(last, str):
            joined[-1] = last + each
        else:
            joined.append(each)
    return joined


@pytest.mark.parametrize(
    ("syntax", "text", "expected"),
    [
        (HERMES, f"Wait.\n<tool_call>\n{W}\n</tool_call>\n", ["Wait.", BERN]),
        (HERMES, f'<tool_call>{W}</tool_call><tool_call>{{"name":"clock"}}', [BERN, CLOCK]),
        (HERMES, f"<tool_call>[{W}, {W}]</tool_call> so", [BERN, BERN, "so"]),
        (HERMES, f"So: ```json\n{W}\n```", ["So:", BERN]),
        (HERMES, f" {W}", [BERN]),
        (
            HERMES,
            '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"}</tool_call>\\"}"}',
            [ToolCall("weather", '{"city": "}</tool_call>"}')],
        ),
        (SMOLLM3, f"<tool_call>{W}</tool_call>", [BERN]),
        (
            SMOLLM3,
            "<code>\nweather('Bern')\nprint(clock())\nx = weather(city='Bern')\n</code>",
            [BERN, CLOCK, BERN],
        ),
        (MISTRAL, f"[TOOL_CALLS] [{W}, {W}]", [BERN, BERN]),
        (MISTRAL, f"Well[TOOL_CALLS]{W}", ["Well", BERN]),
        (
            MISTRAL_ARGS,
            '[TOOL_CALLS]weather[ARGS]{"city": "Bern"}[TOOL_CALLS]clock[CALL_ID]a1[ARGS]{}',
            [BERN, CLOCK],
        ),
        (MISTRAL_ARGS, '[TOOL_CALLS]weather{"city": "Bern"}', [BERN]),
        (GRANITE, f"<|tool_call|>[{W}, {W}]", [BERN, BERN]),
        (LLAMA3, f"\n{P}", [BERN]),
        (LLAMA3, f"{P}; {P}", [BERN, BERN]),
        (LLAMA3, f"Yes <|python_tag|>{W}\n{P}", ["Yes", BERN, BERN]),
    ],
)
def test_calls_are_found(syntax: Syntax, text: str, expected: list[str | ToolCall]) -> None:
    assert parse(syntax, text) == expected


@pytest.mark.parametrize(
    ("syntax", "text"),
    [
        (HERMES, '<tool_call>{"name": "nobody", "arguments": {}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "clock", "arguments": []}</tool_call> '),
        (HERMES, '<tool_call>{"name": "clock", "arguments": {"a": 1e999}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "clock", "arguments": {"a": NaN}}</tool_call>'),
        (HERMES, '<tool_call>{"name": "clock", "arguments": "[1]"}</tool_call>'),
        (HERMES, '<tool_call>{"name": ["clock"]}</tool_call>'),
        (HERMES, '<tool_call>{"name": "clock", "argum'),
        (HERMES, f"<tool_call>[{W}, 1]</tool_call>"),
        (HERMES, '<tool_call>{"name": "clock", "arguments": ' + '{"a":' * 60 + "1" + "}" * 62),
        (HERMES, "<tool_call>" + "[" * 100_000 + "]" * 100_000),
        (HERMES, f"I would write {W} here."),
        (HERMES, '{"name": "clock"}'),
        (HERMES, "```python\nclock()\n``` and ```json\n[1]\n```"),
        (SMOLLM3, "<code>import os</code>"),
        (SMOLLM3, "<code>weather(open('x'))</code>"),
        (SMOLLM3, "<code>weather('a', city='b')</code>"),
        (SMOLLM3, "<code>weather(*'a')</code><code>clock(1)</code><code>clock(**{})</code>"),
        (SMOLLM3, "<code>weather({1, 2})</code><code>weather(b'')</code><code>weather({[]: 1})"),
        (SMOLLM3, "<code>weather(" + "-" * 9000 + "1)</code>"),
        (SMOLLM3, "<code>weather(" + "(" * 9000 + "</code>"),
        (SMOLLM3, "<code>" + "clock()\n" * 10_000 + "</code>"),
        (SMOLLM3, "<code>clock()"),
        (MISTRAL, "[TOOL_CALLS] and so on"),
        (MISTRAL, "[TOOL_CALLS]nobody[ARGS]{}"),
        (LLAMA3, ' {"name": "Bern", "parameters": {}} is no call'),
        (LLAMA3, '{"name": "clock"}'),
        (LLAMA3, "<|python_tag|>brave_search.call(query='x')"),
        (LLAMA3, " \n"),
    ],
)
def test_what_is_no_call_stays_text(syntax: Syntax, text: str) -> None:
    assert parse(syntax, text) == [text]


def test_halves_of_surrogate_pairs_can_be_sent() -> None:
    (call,) = parse(HERMES, '<tool_call>{"name":"clock","arguments":{"a":"\\ud800"}}</tool_call>')
    assert isinstance(call, ToolCall)
    assert json.loads(call.arguments.encode()) == {"a": "\ud800"}


def test_text_is_shown_as_soon_as_it_is_no_call() -> None:
    parser = CallParser(HERMES, TOOLS)
    assert parser.push("Hello <to") == ["Hello"]
    assert parser.push("wer>") == [" <tower>"]


def test_what_is_read_in_vain_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "MOST_IN_VAIN", 100)
    text = "<tool_call>[" * 100
    assert parse(HERMES, text) == [text]


MARKS = ("<tool_call>", "</tool_call>", "<code>", "</code>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")
WORDS = ("<|python_tag|>", "```", "```json\n", "weather", "clock()", "(", ")", '"', "\\", ";", "\n")
JSON = (W, P, f"[{W}]", "{}", "{", "}", "[", "]", " ", "é", '{"city": "Bern"}', "weather('Bern')")
PIECES = st.sampled_from((*MARKS, *WORDS, *JSON))


@given(st.sampled_from(SYNTAXES), st.lists(PIECES, max_size=10), st.data())
def test_pieces_make_no_difference(syntax: Syntax, pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    places = st.integers(0, len(text))
    cuts = sorted(data.draw(st.lists(places, max_size=8)))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = parse(syntax, text)
    assert parse(syntax, *parts) == whole
    assert parse(syntax, *text) == whole
    if not any(isinstance(each, ToolCall) for each in whole):
        assert "".join(map(str, whole)) == text


@given(st.sampled_from(SYNTAXES), st.lists(st.sampled_from([BERN, CLOCK]), min_size=1, max_size=3))
def test_what_is_written_is_read(syntax: Syntax, calls: list[ToolCall]) -> None:
    assert parse(syntax, syntax.frame.write(calls)) == calls
