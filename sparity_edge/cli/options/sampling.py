"""The sampling options of the command line, from the table of settings.

Names, readers and meanings are those of `generation/settings.py`; argparse is known here alone.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from sparity_edge.cli.options.constraint import add_constraint_options
from sparity_edge.errors import OptionError
from sparity_edge.generation.params import SamplingParams
from sparity_edge.generation.settings import OPTIONS, read_flag, shown


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser an option for each sampling parameter, and those of what a text must follow."""
    group = parser.add_argument_group(
        "sampling", "A model's own generation_config.json goes before the defaults named here."
    )
    for option in OPTIONS:
        default = shown(getattr(SamplingParams(), option.name))
        about = f"{option.meaning} (default: {default})".replace("%", "%%")
        if option.name == "stop_loops":
            group.add_argument(
                option.flag,
                action=argparse.BooleanOptionalAction,
                help=f"{option.meaning} (default: in `chat` only)",
            )
            continue
        if option.read is read_flag:
            group.add_argument(option.flag, action="store_true", help=option.meaning)
            continue
        group.add_argument(
            option.flag,
            type=_for_argparse(option.read),
            action="append" if option.repeated else "store",
            metavar=option.metavar,
            help=about,
        )
    add_constraint_options(parser)


def sampling_params(
    arguments: argparse.Namespace, defaults: SamplingParams | None = None
) -> SamplingParams:
    """The parameters that were given, in the place of defaults.

    Raises:
        OptionError: a value is out of range.
    """
    given = {option.name: getattr(arguments, option.name) for option in OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    if "logit_bias" in given:
        given["logit_bias"] = dict(given["logit_bias"])
    return dataclasses.replace(defaults or SamplingParams(), **given)


def _for_argparse(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """argparse shows the sentence of its own exception only."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except OptionError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert
