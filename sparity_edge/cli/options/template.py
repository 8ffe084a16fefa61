"""The option that sets variables of the model's chat template: --template-arg NAME=VALUE."""

from __future__ import annotations

import argparse
from typing import Any

from sparity_edge.errors import OptionError
from sparity_edge.text.template_args import read_pair


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
    try:
        return read_pair(text)
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
