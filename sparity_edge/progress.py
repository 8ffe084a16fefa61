"""How long work tells its listener how far it is, and what it may do to get there.

The library only calls; the command line turns the calls into a bar on stderr. Nothing here prints
or knows of a terminal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Progress(Protocol):
    """Called again and again while something takes long."""

    def __call__(self, label: str, done: int, total: int) -> None:
        """`done` of `total` bytes (or items) of the work named `label` are through."""


def silent(label: str, done: int, total: int) -> None:
    """The `Progress` that says nothing."""


def unheard(sentence: str) -> None:
    """The listener to notes that hears nothing."""


@dataclass(frozen=True)
class CallContext:
    """What finding and packing a model may do, and whom it tells; handed down from the door."""

    offline: bool = False  # use only what is on this machine
    progress: Progress = silent  # told of downloads, packing, calibrating and compiling
    # Given one sentence before something is made that stays on disk.
    notify: Callable[[str], None] = unheard


QUIET = CallContext()
