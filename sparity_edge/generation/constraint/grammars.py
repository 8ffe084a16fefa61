"""What a text may be told to follow, as a grammar for llguidance: schemas, regexes, grammars.

Sizes and nesting are checked here, before the library sees them; what the library makes of a
grammar is `constraints`' matter. Knows nothing of tokens.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from sparity_edge.errors import OptionError

# json_object: any JSON object. grammar: Lark with llguidance's extensions, or its own JSON form.
Kind = Literal["json_object", "json_schema", "regex", "grammar"]

# A JSON schema, its JSON, or a class of pydantic's, which has `model_json_schema`.
Schema = Mapping[str, Any] | str | type

# Of a schema or grammar. llguidance descends once for every level, with 4 to 9 KB of stack, and no
# text of this size has so many that STACK would not hold them.
MOST_BYTES = 1 << 16
STACK = 1 << 28
MOST_REGEX_BYTES = 1 << 13
MOST_NESTED = 100  # levels of a schema's JSON; llguidance reads 128
# As `json.dumps` writes, which models have read most of: one line, one space behind , and :. White
# space of the model's choice would let small models write nothing else.
STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def grammar_of(kind: Kind, content: object, field: str) -> str:
    """The grammar, as llguidance takes it, of what a text is told to follow.

    Args:
        kind: what `content` is.
        content: a JSON schema (an object, its JSON, or a model of pydantic's), a regex or a
            grammar; of "json_object" it is not looked at.
        field: what the user calls it, for errors.

    Raises:
        OptionError: it is nothing of that kind, too large or nested too deeply.
    """
    from llguidance import LLMatcher

    if kind == "json_object":
        content, kind = {"type": "object"}, "json_schema"
    if kind == "json_schema":
        text = _schema_text(content, field)
        return LLMatcher.grammar_from_json_schema(text, STYLE, {"lenient": False})
    most = MOST_REGEX_BYTES if kind == "regex" else MOST_BYTES
    text = _checked(content, field, most)
    if kind == "regex":
        return LLMatcher.grammar_from_regex(text)
    if text.lstrip().startswith("{"):
        return json.dumps(_parsed(text, field))
    return LLMatcher.grammar_from_lark(text)


def _schema_text(schema: object, field: str) -> str:
    """The JSON of a schema, checked for its size and nesting."""
    if hasattr(schema, "model_json_schema"):  # a class of pydantic's
        schema = schema.model_json_schema()
    if isinstance(schema, str | bytes):
        schema = _parsed(_checked(schema, field, MOST_BYTES), field)
    if not isinstance(schema, Mapping):
        raise OptionError(f"{field} is no JSON object; give a schema such as {{'type': 'object'}}.")
    _demand_shallow(schema, field)
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{field} cannot be written as JSON ({error}); mend it.") from None
    return _checked(text, field, MOST_BYTES)


def _parsed(text: str, field: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise OptionError(f"{field} is no JSON ({reason}); mend it.") from None
    _demand_shallow(found, field)
    return found


def _demand_shallow(value: Any, field: str) -> None:
    level: list[Any] = [value]
    for _ in range(MOST_NESTED):
        inner = [list(each.values()) if isinstance(each, Mapping) else each for each in level]
        level = [
            value
            for values in inner
            if isinstance(values, list | tuple)
            for value in values
            if isinstance(value, Mapping | list | tuple)
        ]
        if not level:
            return
    raise OptionError(f"{field} is nested deeper than {MOST_NESTED} levels; make it flatter.")


def _checked(content: object, field: str, most: int) -> str:
    """A text of at most so many bytes."""
    if isinstance(content, bytes):
        content = content.decode("utf-8", "replace")
    if not isinstance(content, str) or not content.strip():
        raise OptionError(f"{field} is no text with anything in it; give one, or leave it out.")
    size = len(content.encode("utf-8", "replace"))
    if size > most:
        raise OptionError(f"{field} has {size:,} bytes; make it at most {most:,}.")
    return content
