"""ToolCall: one call as data, and how it is made of the JSON that a model wrote.

What a model writes is as little to be trusted as any file: a call counts only if it names a tool
that was offered and its arguments are a JSON object. Knows nothing of what stands around the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

# Of arguments: templates are given them back, and render nothing that is nested deeper than 64.
MOST_DEPTH = 32
KEYS = ("arguments", "parameters")  # what models call arguments; of both the first counts


@dataclass(frozen=True)
class ToolCall:
    """A call of one tool.

    Example:
        >>> ToolCall("weather", '{"city": "Bern"}').name
        'weather'
    """

    name: str
    arguments: str  # a JSON object as text


def calls_of(value: Any, names: Collection[str]) -> list[ToolCall]:
    """The calls that a JSON value stands for; [] if it is not one call or a list of calls.

    Args:
        value: as `json.loads` gives it.
        names: of the tools that were offered.
    """
    values = value if isinstance(value, list) else [value]
    found = [_call_of(each, names) for each in values]
    return [each for each in found if each is not None] if None not in found else []


def call_of(name: object, arguments: object, names: Collection[str]) -> ToolCall | None:
    """The call of a tool, or None if there is no such tool or the arguments are no object.

    Args:
        name: of the tool.
        arguments: an object, its JSON as text, or None where the tool takes none.
        names: of the tools that were offered.
    """
    try:
        given = loads(arguments) if isinstance(arguments, str) else arguments
        given = {} if given is None else given
        if name not in names or not isinstance(given, dict) or not shallow(given):
            return None
        return ToolCall(str(name), dumps(given))
    except (TypeError, ValueError):  # 1e999 is a number for the parser, and is not for JSON
        return None


def loads(text: str) -> Any:
    """A JSON value.

    Raises:
        ValueError: it is none, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dumps(value: Any) -> str:
    """A value as JSON that can be sent; halves of surrogate pairs stay escapes.

    Raises:
        TypeError, ValueError: JSON cannot hold it.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def shallow(value: Any, most: int = MOST_DEPTH) -> bool:
    """Whether a JSON value is nested no deeper than `most`."""
    stack = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, dict | list):
            if depth >= most:
                return False
            parts = item.values() if isinstance(item, dict) else item
            stack.extend((part, depth + 1) for part in parts)
    return True


def _call_of(value: Any, names: Collection[str]) -> ToolCall | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    given = [value[key] for key in KEYS if key in value]
    return call_of(value["name"], given[0] if given else None, names)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
