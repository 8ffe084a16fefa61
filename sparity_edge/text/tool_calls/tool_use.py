"""ToolUse: what a model's chat template makes of tools, found out by rendering small conversations.

Templates of strangers ignore what they do not know without a word. So each is asked once whether
offered tools, and calls made earlier, come out of it at all, and in which form it takes them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sparity_edge.errors import OptionError, TemplateError
from sparity_edge.text.tool_calls.call import ToolCall
from sparity_edge.text.tool_calls.syntaxes import Syntax, syntax_of

Messages = Sequence[Mapping[str, Any]]
Render = Callable[[Messages, Mapping[str, Any]], str]  # messages and variables -> text

# What templates call the tools; SmolLM3 has the second, and the third for tools called in Python.
VARIABLES = ("tools", "xml_tools", "python_tools")
_NAME, _VALUE, _IDS = "zq_probe", "zq_value", ("zqprobe01", "zqprobe02")
_PARAMETERS = {"type": "object", "properties": {"key": {"type": "string"}}}
_FUNCTION = {"name": _NAME, "description": "A probe.", "parameters": _PARAMETERS}
_TOOL = {"type": "function", "function": _FUNCTION}
_USER = {"role": "user", "content": "Hello"}


class ToolUse:
    """What can be told a model about tools.

    Args:
        source: text of its chat template.
        render: the template; raises TemplateError.
    """

    def __init__(self, source: str, render: Render) -> None:
        self.syntax: Syntax | None = syntax_of(source)
        self._render = render
        self._variable = next((name for name in VARIABLES if self._shows_tools(name)), None)
        arguments = {"key": _VALUE}
        self._most_calls = self._shown_calls(arguments)  # in one message; 0: it leaves them out
        self._as_text = not self._most_calls  # whether arguments are taken as text only
        if self._as_text:
            self._most_calls = self._shown_calls(json.dumps(arguments))

    def offer(self, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Variables that offer tools to the template.

        Args:
            tools: as OpenAI has them, {"type": "function", "function": {...}}.

        Raises:
            OptionError: it does not know tools, or calls would come in an unknown syntax.
        """
        self.demand_syntax()
        if self._variable is None:
            raise OptionError(
                "The model's chat template does not know tools; leave them out, or serve a model "
                "that was trained to call them."
            )
        return {self._variable: list(tools)}

    def demand_syntax(self) -> Syntax:
        """The syntax of the model's calls.

        Raises:
            OptionError: it is not known.
        """
        if self.syntax is None:
            raise OptionError(
                "The model's chat template has no syntax of tool calls that is known here (Hermes "
                "and Qwen, Llama 3, Mistral, SmolLM3, Granite 3); leave tools and calls out."
            )
        return self.syntax

    def prepared(self, messages: Messages) -> list[dict[str, Any]]:
        """Messages with their tool calls in the form that the template takes.

        Args:
            messages: calls in "tool_calls" as OpenAI has them, but arguments as objects.

        Raises:
            OptionError: the template does not know calls, and their syntax is not known.
        """
        found = []
        rest = list(messages)
        while rest:
            message = rest.pop(0)
            calls = message.get("tool_calls") or ()
            if len(calls) > 1 and self._most_calls == 1:
                rest = [*_one_by_one(message, rest), *rest[_results(rest) :]]
            else:
                found.append(self._prepared(dict(message)))
        return found

    def _prepared(self, message: dict[str, Any]) -> dict[str, Any]:
        if isinstance(message.get("tool_call_id"), str):
            message["tool_call_id"] = self._id(message["tool_call_id"])
        if not message.get("tool_calls"):
            return message
        calls = [dict(each) for each in message["tool_calls"]]
        if not self._most_calls:
            frame = self.demand_syntax().frame
            written = frame.write([_call(each["function"]) for each in calls])
            content = f"{message['content']}\n" if message["content"] else ""
            message["content"] = content + written
            del message["tool_calls"]
            return message
        for call in calls:
            call["id"] = self._id(call["id"])
            if self._as_text:
                call["function"] = {**call["function"], "arguments": _text(call["function"])}
        message["tool_calls"] = calls
        return message

    def _id(self, given: str) -> str:
        """An id that the template takes: those of Mistral want nine letters and digits."""
        if self.syntax is None or self.syntax.name != "mistral":
            return given
        if re.fullmatch(r"[A-Za-z0-9]{9}", given):
            return given
        return hashlib.sha256(given.encode("utf-8", "replace")).hexdigest()[:9]

    def _shows_tools(self, variable: str) -> bool:
        try:
            return _NAME in self._render([_USER], {variable: [_TOOL]})
        except TemplateError:
            return False

    def _shown_calls(self, arguments: object) -> int:
        """How many of two calls in one message come out of the template; of one, if two fail."""
        found = [self._count(arguments, ids) for ids in (_IDS, _IDS[:1])]
        return max(found)

    def _count(self, arguments: object, ids: Sequence[str]) -> int:
        function = {"name": _NAME, "arguments": arguments}
        calls = [{"id": each, "type": "function", "function": function} for each in ids]
        said = {"role": "assistant", "content": "", "tool_calls": calls}
        result = {"role": "tool", "name": _NAME, "content": "Done"}
        results = [{**result, "tool_call_id": each} for each in ids]
        variables = {self._variable: [_TOOL]} if self._variable else {}
        try:
            return self._render([_USER, said, *results], variables).count(_VALUE)
        except TemplateError:
            return 0


def _results(messages: Messages) -> int:
    """How many results of tools the messages begin with."""
    roles = [each["role"] for each in messages]
    return next((n for n, role in enumerate(roles) if role != "tool"), len(roles))


def _one_by_one(message: Mapping[str, Any], behind: Messages) -> list[Mapping[str, Any]]:
    """A message of several calls as several of one call, each with its result behind it."""
    results, found = list(behind[: _results(behind)]), list[Mapping[str, Any]]()
    for number, call in enumerate(message["tool_calls"]):
        content = "" if number else message["content"]
        found.append({**message, "content": content, "tool_calls": [call]})
        own = [each for each in results if each.get("tool_call_id") == call["id"]]
        found += own
        results = [each for each in results if each not in own]
    return found + results


def _call(function: Mapping[str, Any]) -> ToolCall:
    return ToolCall(str(function["name"]), _text(function))


def _text(function: Mapping[str, Any]) -> str:
    return json.dumps(function["arguments"], ensure_ascii=False)
