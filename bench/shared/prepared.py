"""A recording that a script keeps to look at: its KV caches stay those that it was made for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Kept:
    """What `Machine.prepare` gives.

    Args:
        run: runs the recording; told whether it may take long.
    """

    def __init__(self, run: Callable[[bool], None]) -> None:
        self._run = run

    def __call__(self, may_take_long: bool) -> None:
        """Run it."""
        self._run(may_take_long)

    def moves(self, rows: Any) -> bool:  # noqa: ARG002
        """Other KV caches cost another recording."""
        return False
