"""The syntaxes of tool calls, each as marks that begin a call and a reader of what follows them.

Hermes and Qwen: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`, small models without
the tags or in a code block. SmolLM3: that, or calls in Python between `<code>` and `</code>`.
Mistral: `[TOOL_CALLS]` and a list of such objects, later `[TOOL_CALLS]name[ARGS]{...}`. Granite 3:
`<|tool_call|>` and such a list. Llama 3: the object alone, with "parameters", `<|python_tag|>`
before it or not. The text of a model's chat template tells which one it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sparity_edge.text.tool_calls.call import KEYS, ToolCall, call_of, calls_of, loads
from sparity_edge.text.tool_calls.frame import ARGUMENTS, NAME, Frame
from sparity_edge.text.tool_calls.python_calls import python_calls
from sparity_edge.text.tool_calls.source import (
    Reading,
    Source,
    json_text,
    skip_blanks,
    take,
    until,
    word,
)

Tools = Mapping[str, Sequence[str]]  # names of the tools that are offered -> of their parameters
Reader = Callable[[Source, Tools], Reading[list[ToolCall]]]  # [] for what is no call


@dataclass(frozen=True)
class Syntax:
    """How a family of models writes its calls.

    Args:
        name: of the family.
        readers: mark that begins a call -> what reads on behind it.
        marks: all texts that may be special tokens and have to be seen.
        frame: what stands around names and arguments where calls are written.
        first: reads a call without a mark, in front of all other text; begins with "{".
    """

    name: str
    readers: Mapping[str, Reader]
    marks: tuple[str, ...]
    frame: Frame
    first: Reader | None = None


def syntax_of(template: str) -> Syntax | None:
    """The syntax that a chat template asks its model for; None: none that is known.

    Args:
        template: its text.
    """
    if "[TOOL_CALLS]" in template:
        return MISTRAL_ARGS if "[ARGS]" in template else MISTRAL
    if "<tool_call>" in template:
        # Qwen3-Coder and GLM have XML inside of these tags.
        if "<function=" in template or "<arg_key>" in template:
            return None
        return SMOLLM3 if "python_tools" in template else HERMES
    if "<|tool_call|>" in template:
        return GRANITE
    if "<function=" in template:  # Functionary
        return None
    if "<|python_tag|>" in template or "ipython" in template:
        return LLAMA3
    return None


def _json_calls(source: Source, tools: Tools) -> Reading[list[ToolCall]]:
    yield from skip_blanks(source)
    text = yield from json_text(source)
    return [] if text is None else calls_of(_value(text), tools)


def _value(text: str) -> Any:
    try:
        return loads(text)
    except ValueError:
        return None


def _bare(source: Source, tools: Tools) -> Reading[list[ToolCall]]:
    """A call that only its shape tells from other JSON: so the arguments have to be there."""
    yield from skip_blanks(source)
    text = yield from json_text(source)
    value = None if text is None else _value(text)
    whole = isinstance(value, dict) and any(key in value for key in KEYS)
    return calls_of(value, tools) if whole else []


def _tagged(source: Source, tools: Tools) -> Reading[list[ToolCall]]:
    calls = yield from _json_calls(source, tools)
    end = source.at
    yield from skip_blanks(source)
    if calls and not (yield from take(source, "</tool_call>")):
        source.at = end  # small models forget it
    return calls


def _fenced(source: Source, tools: Tools) -> Reading[list[ToolCall]]:
    """A call in a code block, which small models write instead of the tags."""
    yield from take(source, "json")
    calls = yield from _bare(source, tools)
    yield from skip_blanks(source)
    return calls if (yield from take(source, "```")) else []


def _python(source: Source, tools: Tools) -> Reading[list[ToolCall]]:
    text = yield from until(source, "</code>")
    return [] if text is None else python_calls(text, tools)


def _mistral(source: Source, tools: Tools) -> Reading[list[ToolCall]]:
    yield from skip_blanks(source)
    name = yield from word(source)
    if not name:
        return (yield from _json_calls(source, tools))
    if (yield from take(source, "[CALL_ID]")):
        yield from word(source)
    yield from take(source, "[ARGS]")
    yield from skip_blanks(source)
    text = yield from json_text(source)
    call = None if text is None else call_of(name, text, tools)
    return [] if call is None else [call]


def _llama3(source: Source, tools: Tools) -> Reading[list[ToolCall]]:
    found: list[ToolCall] = []
    while True:
        end = source.at
        if found:
            yield from skip_blanks(source)
            yield from take(source, ";")
        calls = yield from _bare(source, tools)
        if not calls:
            source.at = end
            return found
        found += calls


_TAGS = ("<tool_call>", "</tool_call>")
_MISTRAL_MARKS = ("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]")
_TAGGED: Mapping[str, Reader] = {"<tool_call>": _tagged, "```": _fenced}
_TAGGED_FRAME = Frame(
    call=(
        "<tool_call>",
        '\n{"name": "',
        NAME,
        '", "arguments": ',
        ARGUMENTS,
        "}\n",
        "</tool_call>",
    ),
    between="\n",
)
HERMES = Syntax("hermes", _TAGGED, _TAGS, _TAGGED_FRAME, first=_bare)
SMOLLM3 = Syntax(
    "smollm3",
    {**_TAGGED, "<code>": _python},
    (*_TAGS, "<code>", "</code>"),
    _TAGGED_FRAME,
    first=_bare,
)
_LIST = Frame(
    call=('{"name": "', NAME, '", "arguments": ', ARGUMENTS, "}"), between=", ", end=("]",)
)
GRANITE = Syntax(
    "granite",
    {"<|tool_call|>": _json_calls},
    ("<|tool_call|>",),
    replace(_LIST, begin=("<|tool_call|>", "[")),
)
MISTRAL = Syntax(
    "mistral",
    {"[TOOL_CALLS]": _mistral},
    _MISTRAL_MARKS,
    replace(_LIST, begin=("[TOOL_CALLS]", " [")),
)
MISTRAL_ARGS = Syntax(
    "mistral",
    {"[TOOL_CALLS]": _mistral},
    _MISTRAL_MARKS,
    Frame(call=("[TOOL_CALLS]", NAME, "[ARGS]", ARGUMENTS)),
)
LLAMA3 = Syntax(
    "llama3",
    {"<|python_tag|>": _llama3},
    ("<|python_tag|>",),
    Frame(call=('{"name": "', NAME, '", "parameters": ', ARGUMENTS, "}"), between="; "),
    first=_llama3,
)
