"""How long work tells its listener how far it is.

The library only calls; the command line turns the calls into a bar on stderr. Nothing here prints
or knows of a terminal.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called again and again while something takes long."""

    def __call__(self, label: str, done: int, total: int) -> None:
        """`done` of `total` bytes (or items) of the work named `label` are through."""


def silent(label: str, done: int, total: int) -> None:
    """The `Progress` that says nothing."""
