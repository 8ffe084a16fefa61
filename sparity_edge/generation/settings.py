"""The table of settings: every sampling parameter with how its text is read and what it means.

The command line, /set of the chat and saved conversations read it. What a value may be is decided
by `SamplingParams`; this module turns text into values and back.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sparity_edge.config.values import show
from sparity_edge.errors import OptionError
from sparity_edge.generation.escapes import escape, unescape
from sparity_edge.generation.params import SamplingParams
from sparity_edge.spelling import did_you_mean


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise OptionError(f"{show(text)} is not a number") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"{show(text)} is not a whole number") from None


def read_flag(text: str) -> bool:
    known = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
    if text.lower() not in known:
        raise OptionError(f"{show(text)} is neither true nor false")
    return known[text.lower()]


def _bias(text: str) -> tuple[int, float]:
    token, equals, amount = text.partition("=")
    if not equals:
        raise OptionError(f"{show(text)} is not ID=VALUE, such as 42=-5 or 42=-inf")
    return _whole(token), _number(amount)


@dataclass(frozen=True)
class SamplingOption:
    """One parameter: how its text is read and what it means."""

    name: str  # as in SamplingParams
    read: Callable[[str], Any]
    metavar: str
    meaning: str
    repeated: bool = False

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return "--" + self.name.replace("_", "-")


OPTIONS = (
    SamplingOption("temperature", _number, "T", "0 takes the most probable token each time"),
    SamplingOption("top_k", _whole, "K", "keep the K most probable tokens; 0: all"),
    SamplingOption("top_p", _number, "P", "keep the fewest tokens that hold this probability"),
    SamplingOption("min_p", _number, "P", "drop tokens below P times the best one's probability"),
    SamplingOption(
        "repetition_penalty", _number, "X", "above 1: less of tokens in prompt or answer"
    ),
    SamplingOption(
        "presence_penalty", _number, "X", "taken off the logit of each sampled token, once"
    ),
    SamplingOption(
        "frequency_penalty", _number, "X", "taken off the logit each time a token was sampled"
    ),
    SamplingOption("seed", _whole, "N", "of the draw: one seed gives one text"),
    SamplingOption(
        "stop",
        unescape,
        "TEXT",
        r"end in front of this text, \n is a line end; may be repeated",
        True,
    ),
    SamplingOption("max_tokens", _whole, "N", "end after N tokens"),
    SamplingOption("logit_bias", _bias, "ID=X", "add X to a token's logit, -inf bans it", True),
    SamplingOption("ignore_eos", read_flag, "", "go on after the model's end of text"),
    SamplingOption("stop_loops", read_flag, "", "end a text that repeats itself word for word"),
)
BY_NAME = {option.name: option for option in OPTIONS}


def change_setting(params: SamplingParams, name: str, text: str) -> SamplingParams:
    """The parameters with one of them replaced.

    Args:
        params: the present ones.
        name: of the parameter, with _ or -.
        text: the new value; "none" is the default of those that are off by default. Several stop
            strings or biases are separated by blanks, and quoted where they contain some. In stop
            strings a line end is typed \\n.

    Raises:
        OptionError: no such parameter, or not such a value.
    """
    name = name.replace("-", "_")
    option = BY_NAME.get(name)
    if option is None:
        hint = did_you_mean(name, BY_NAME)
        raise OptionError(
            f"There is no setting {show(name)}; there are {', '.join(BY_NAME)}.{hint}"
        )
    try:
        value = _read_setting(option, text)
    except OptionError as error:
        raise OptionError(f"{name}: {error}.") from None
    return dataclasses.replace(params, **{name: value})


def _read_setting(option: SamplingOption, text: str) -> Any:
    if text.lower() == "none" and option.name in ("seed", "max_tokens", "stop", "logit_bias"):
        return getattr(SamplingParams(), option.name)
    if not option.repeated:
        return option.read(text)
    try:
        words = _words(text)
    except ValueError:
        raise OptionError(f"{show(text)} has a quotation mark without its partner") from None
    values = [option.read(word) for word in words]
    return dict(values) if option.name == "logit_bias" else values


def _words(text: str) -> list[str]:
    """Words of a line, quoted where they contain blanks; a backslash is left to who reads them."""
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = lexer.escape = ""
    return list(lexer)


def list_settings(params: SamplingParams) -> list[str]:
    """One line for each parameter: name, value, meaning."""
    return [
        f"{option.name:<19} {shown(getattr(params, option.name)):<10} {option.meaning}"
        for option in OPTIONS
    ]


def to_json(params: SamplingParams) -> dict[str, Any]:
    """The parameters as plain JSON values."""
    values = {name: getattr(params, name) for name in BY_NAME}  # what a chat can set
    values["stop"] = list(params.stop)
    values["logit_bias"] = {
        str(token): "-inf" if amount == -math.inf else amount
        for token, amount in params.logit_bias.items()
    }
    return values


def from_json(values: Any) -> SamplingParams:
    """The inverse of `to_json`; raises OptionError for anything else."""
    if not isinstance(values, dict):
        raise OptionError("the settings are not a JSON object")
    unknown = sorted(set(values) - set(BY_NAME))
    if unknown:
        raise OptionError(f"there is no setting {show(unknown[0])}")
    values = dict(values)
    bias = values.get("logit_bias", {})
    if not isinstance(bias, dict):
        raise OptionError("logit_bias is not a JSON object")
    values["logit_bias"] = {
        _whole(token): -math.inf if amount == "-inf" else amount for token, amount in bias.items()
    }
    return SamplingParams(**values)


def shown(value: Any) -> str:
    """A value as the user would type it."""
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(shlex.quote(escape(text)) for text in value)
    if isinstance(value, dict):
        return " ".join(f"{token}={amount:g}" for token, amount in value.items())
    return str(value)
