"""JSON as every command with --json writes it: alone on stdout, in ASCII, without NaN.

Keys are in snake_case and name their unit (bytes, seconds); what they are each command decides.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from typing import Any


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Give a command --json."""
    parser.add_argument(
        "--json", action="store_true", help="as JSON, alone on stdout; null: unknown or no number"
    )


def print_json(value: Any) -> None:
    """Write a value to stdout.

    ASCII, because stdout may be of an encoding that would spoil anything else.
    """
    print(json.dumps(finite(value), indent=2, allow_nan=False))


def finite(value: Any) -> Any:
    """A copy with None for every number that is not finite: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
