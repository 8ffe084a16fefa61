"""Calls that are written as Python, as SmolLM3 may: `weather(city="Bern")`, one on each line.

The text is parsed and never run: what is more than calls of known tools with literals is no call.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from sparity_edge.text.tool_calls.call import ToolCall, call_of

MOST_CHARACTERS = 1 << 16  # the parser takes memory many times that


def python_calls(text: str, tools: Mapping[str, Sequence[str]]) -> list[ToolCall]:
    """The calls that a program consists of; [] if there is anything else in it.

    Args:
        text: the program.
        tools: names of the tools that are offered -> names of their parameters, in order.
    """
    if len(text) > MOST_CHARACTERS:
        return []
    try:
        statements = ast.parse(text.strip()).body
        found = [_call(statement, tools) for statement in statements]
    except (TypeError, ValueError, SyntaxError, RecursionError, MemoryError):
        return []
    return [each for each in found if each is not None] if None not in found else []


def _call(statement: ast.stmt, tools: Mapping[str, Sequence[str]]) -> ToolCall | None:
    call = statement.value if isinstance(statement, ast.Expr | ast.Assign) else None
    if _calls(call, ("print",)) and len(call.args) == 1 and not call.keywords:  # type: ignore[union-attr]
        call = call.args[0]  # type: ignore[union-attr]
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return None
    names = tools.get(call.func.id, ())
    if len(call.args) > len(names):
        return None
    arguments: dict[str, Any] = dict(zip(names, map(ast.literal_eval, call.args), strict=False))
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            return None
        arguments[keyword.arg] = ast.literal_eval(keyword.value)
    return call_of(call.func.id, arguments, tools)


def _calls(node: ast.AST | None, names: Sequence[str]) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
