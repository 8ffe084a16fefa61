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

VARIABLES = ("tools", "xml_tools")  # what templates call the tools; SmolLM3 has the second
_NAME, _VALUE, _ID = "zq_probe", "zq_value", "zqprobe01"
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
        objects, texts = ({"key": _VALUE}, json.dumps({"key": _VALUE}))
        self._takes_objects = self._shows_call(objects)
        self._takes_texts = not self._takes_objects and self._shows_call(texts)

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
                "and Qwen, Llama 3, Mistral, SmolLM3); leave tools and calls out."
            )
        return self.syntax

    def prepared(self, messages: Messages) -> list[dict[str, Any]]:
        """Messages with their tool calls in the form that the template takes.

        Args:
            messages: calls in "tool_calls" as OpenAI has them, but arguments as objects.

        Raises:
            OptionError: the template does not know calls, and their syntax is not known.
        """
        return [self._prepared(dict(each)) for each in messages]

    def _prepared(self, message: dict[str, Any]) -> dict[str, Any]:
        if isinstance(message.get("tool_call_id"), str):
            message["tool_call_id"] = self._id(message["tool_call_id"])
        if not message.get("tool_calls"):
            return message
        calls = [dict(each) for each in message["tool_calls"]]
        if not (self._takes_objects or self._takes_texts):
            syntax = self.demand_syntax()
            written = syntax.frame.write([_call(each["function"]) for each in calls])
            content = f"{message['content']}\n" if message["content"] else ""
            message["content"] = content + written
            del message["tool_calls"]
            return message
        for call in calls:
            call["id"] = self._id(call["id"])
            if self._takes_texts:
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

    def _shows_call(self, arguments: object) -> bool:
        function = {"name": _NAME, "arguments": arguments}
        call = {"id": _ID, "type": "function", "function": function}
        said = {"role": "assistant", "content": "", "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": _ID, "name": _NAME, "content": "Done"}
        try:
            return _VALUE in self._render([_USER, said, result], {})
        except TemplateError:
            return False


def _call(function: Mapping[str, Any]) -> ToolCall:
    return ToolCall(str(function["name"]), _text(function))


def _text(function: Mapping[str, Any]) -> str:
    return json.dumps(function["arguments"], ensure_ascii=False)
