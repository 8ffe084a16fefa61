"""Checked reading of single values of config.json.

Each function takes one key, refuses a value of the wrong type or out of bounds with a sentence that
names key and value, and gives back a plain Python value. null counts as "not there". The module
knows nothing of what the keys mean.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from sparity_edge.errors import ConfigError

# Bounds on what a hostile config.json may make us allocate; the largest Llama is far below each.
MAX_DIMENSION = 1 << 20
MAX_LAYERS = 1 << 10
MAX_CONTEXT = 1 << 24  # positions; also bounds sliding windows
MAX_REAL = 1e30  # fits into float32 as its inverse does; the largest rope_theta in use is 1e9


def read_integer(
    config: Mapping[str, Any], key: str, most: int, default: int | None = None, least: int = 1
) -> int:
    """A whole number from `least` to `most`; `default` where the key is not there."""
    value = config.get(key)
    if value is None:
        value = default
    if value is None:
        raise ConfigError(f"config.json: {key} is missing; the file is damaged or incomplete.")
    value = whole(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(
            f"config.json: {key}={show(value)} is not a whole number from {least} to {most}."
        )
    return value


def whole(value: Any) -> Any:
    """A float that is a whole number, as some programs write it, as an int; else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def read_real(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """A number above 0 that float32 can hold; `default` where the key is not there."""
    value = config.get(key)
    if value is None:
        value = default
    if value is None:
        raise ConfigError(f"config.json: {key} is missing; the file is damaged or incomplete.")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"config.json: {key}={show(value)} is not a number.")
    if not 1 / MAX_REAL <= value <= MAX_REAL:
        raise ConfigError(
            f"config.json: {key}={show(value)} is not a number from {1 / MAX_REAL:g} to "
            f"{MAX_REAL:g}."
        )
    return float(value)


def read_reals(config: Mapping[str, Any], key: str, count: int) -> tuple[float, ...]:
    """A list of `count` numbers above 0."""
    values = config.get(key)
    if not isinstance(values, list) or len(values) != count:
        held = f" of {len(values)}" if isinstance(values, list) else f"={show(values)}"
        raise ConfigError(f"config.json: {key}{held} is not a list of {count} numbers.")
    return tuple(
        read_real({f"{key}[{at}]": each}, f"{key}[{at}]") for at, each in enumerate(values)
    )


def read_boolean(config: Mapping[str, Any], key: str, default: bool) -> bool:
    """true or false; `default` where the key is not there."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ConfigError(f"config.json: {key}={show(value)} is neither true nor false.")
    return value


def show(value: object) -> str:
    """A value as it stands in the sentence; long and deep ones are cut, they may be megabytes."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = shortener.maxlong = 100
    try:
        return shortener.repr(value)
    except ValueError:
        return "a number of very many digits"
