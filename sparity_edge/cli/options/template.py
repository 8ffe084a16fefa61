"""The option that sets variables of the model's chat template: --template-arg NAME=VALUE."""

from __future__ import annotations

import argparse
import json
from typing import Any

WORDS = {"true": True, "false": False, "none": None, "null": None}


def add_template_option(parser: argparse.ArgumentParser) -> None:
    """Give a parser --template-arg, which may be repeated; `template_args` reads it."""
    parser.add_argument(
        "--template-arg",
        action="append",
        type=_pair,
        metavar="NAME=VALUE",
        help="set a variable of the chat template, such as enable_thinking=false; may be repeated",
    )


def template_args(arguments: argparse.Namespace) -> dict[str, Any]:
    """The variables that were given; of one that was given twice the last value."""
    return dict(arguments.template_arg or ())


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, as in enable_thinking=false")
    return name, _value(value)


def _value(text: str) -> Any:
    """JSON where it is some, true and false in any case; else the text itself."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text
