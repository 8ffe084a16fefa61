"""Files that must not change while they are read: a mapped file that is cut short ends the process.

Reading a page of a mapping behind the new end of its file is no error that could be caught: the
system sends SIGBUS. A file that is written over gives a model of two halves. So size, time and
identity of each file are compared before and after a tensor is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sparity_edge.errors import SourceError

State = tuple[int, int, int]


class Unchanged:
    """What some files were when their reading began; nothing is known of their content.

    Raises:
        SourceError: one of them is not there.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._states = {path: _state(path) for path in paths}

    def demand(self) -> None:
        """Refuse files that are no longer what they were.

        Raises:
            SourceError: one was replaced, written to, cut short or removed.
        """
        for path, state in self._states.items():
            if _state(path) != state:
                raise _changed(path)


def _changed(path: Path) -> SourceError:
    return SourceError(
        f"{path} was changed or replaced while it was read; wait until it is complete, and start "
        "again."
    )


def _state(path: Path) -> State:
    try:
        status = path.stat()
    except OSError as error:
        raise _changed(path) from error
    return status.st_size, status.st_mtime_ns, status.st_ino
