"""Workers that tests hand to other processes, which have to be able to import them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from sparity_edge.errors import SourceError


@contextlib.contextmanager
def squares(folder: Path, threads: int) -> Iterator[Callable[[int], tuple[int, int]]]:
    """A worker that squares numbers; a file tells of each that was opened."""
    (folder / f"opened-{os.getpid()}-{threads}").touch()

    def work(task: int) -> tuple[int, int]:
        if task < 0:
            raise SourceError(f"{task} cannot be squared.")
        fatal = folder / f"fatal-{task}"
        if fatal.exists():
            if fatal.read_text() == "once":
                fatal.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return task * task, threads

    yield work
