"""Variables of a chat template as they are typed: NAME=VALUE, such as enable_thinking=false.

The command line's --template-arg, the chat's /set template and the adapter for lm-eval read them
alike. What a variable may be called and hold is decided by `chat_template`; which variables a
template has, only the template knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sparity_edge.errors import OptionError

WORDS = {"true": True, "false": False, "none": None, "null": None}
EXAMPLE = "enable_thinking=false"


def read_pair(text: str) -> tuple[str, Any]:
    """Return name and value of a variable.

    Args:
        text: NAME=VALUE; the value is JSON where it is some, true and false in any case, and
            otherwise the text itself.

    Raises:
        OptionError: it is not of that form.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise OptionError(f"{text!r} is not NAME=VALUE, as in {EXAMPLE}")
    return name, _value(value)


def read_variables(given: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Return the variables by name.

    Args:
        given: a mapping, a JSON object as text, or NAME=VALUE with blanks between several.

    Raises:
        OptionError: it is none of these.
    """
    if given is None or isinstance(given, Mapping):
        return dict(given or {})
    if not isinstance(given, str):
        raise OptionError(f"template_args={given!r} does not map names to values.")
    whole = _value(given)
    if isinstance(whole, dict):
        return whole
    try:
        return dict(read_pair(word) for word in given.split())
    except OptionError as error:
        raise OptionError(f"template_args: {error}.") from None


def shown_variables(variables: Mapping[str, Any]) -> str:
    """Return the variables as they would be typed, with a blank between two."""
    return " ".join(f"{name}={_typed(value)}" for name, value in variables.items())


def _typed(value: Any) -> str:
    if isinstance(value, str) and _value(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _value(text: str) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text
