"""Frame: what stands around the names and arguments of calls, to write calls and to demand them.

`lark` makes a grammar for llguidance of it: the arguments of each tool by its JSON schema, marks
that are tokens of their own as these tokens. Knows neither models nor tokenizers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparity_edge.text.tool_calls.call import ToolCall

NAME, ARGUMENTS = "\0name", "\0arguments"  # places in a frame; no text holds the like
MOST_AT_ONCE = 16  # calls in one answer that is made to call

# Where one of these says which properties there are, none may be excluded beside it.
_OPEN = frozenset({"$ref", "allOf", "anyOf", "oneOf", "patternProperties"})

Mark = Callable[[str], int | None]  # a text -> the token that it is, None: it is none


@dataclass(frozen=True)
class Frame:
    """The texts around calls.

    Args:
        call: pieces of one call, with places for its name and its arguments.
        begin: pieces in front of the first call.
        between: text between two calls.
        end: pieces behind the last call.
    """

    call: tuple[str, ...]
    begin: tuple[str, ...] = ()
    between: str = ""
    end: tuple[str, ...] = ()

    @property
    def opening(self) -> str:
        """The text that begins the first call."""
        return (*self.begin, *self.call)[0]

    def write(self, calls: Sequence[ToolCall]) -> str:
        """Calls as the model would have written them.

        Args:
            calls: at least one.
        """
        written = [
            "".join(
                {NAME: each.name, ARGUMENTS: each.arguments}.get(part, part) for part in self.call
            )
            for each in calls
        ]
        return "".join((*self.begin, self.between.join(written), *self.end))

    def lark(self, tools: Sequence[Mapping[str, Any]], mark: Mark, style: Mapping[str, Any]) -> str:
        """Rules of a grammar: `calls`, of one call or more, and `call`, of just one.

        Args:
            tools: as OpenAI has them, {"type": "function", "function": {...}}.
            mark: finds tokens.
            style: of the JSON, as llguidance has it.
        """
        functions = [each["function"] for each in tools]
        begin = " ".join(quoted(part, mark) for part in self.begin)
        end = " ".join(quoted(part, mark) for part in self.end)
        between = quoted(self.between, mark) if self.between else ""
        lines = [
            f"calls: {begin} one ({between} one){{0,{MOST_AT_ONCE - 1}}} {end}",
            f"call: {begin} one {end}",
            "one: " + " | ".join(f"one_{number}" for number in range(len(functions))),
        ]
        for number, function in enumerate(functions):
            places = {NAME: json.dumps(function["name"]), ARGUMENTS: f"arguments_{number}"}
            parts = (places.get(part) or quoted(part, mark) for part in self.call)
            lines.append(f"one_{number}: {' '.join(parts)}")
            schema = {**_closed(function.get("parameters") or {}), "x-guidance": dict(style)}
            lines.append(f"arguments_{number}: %json {json.dumps(schema)}")
        return "\n".join(lines)


def quoted(text: str, mark: Mark) -> str:
    """A text in a grammar: the token that it is, or its letters.

    Args:
        text: not empty.
        mark: finds tokens.
    """
    token = mark(text)
    return json.dumps(text) if token is None else f"<[{token}]>"


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object, of no properties but those it names unless it says so."""
    closed = {} if _OPEN.intersection(schema) else {"properties": {}, "additionalProperties": False}
    return {"type": "object", **closed, **schema}
