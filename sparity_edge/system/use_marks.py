"""Marks on files and folders that are in use, so that nobody removes them meanwhile.

A mark is a shared lock (flock) that the system lets go of when the process ends, however that
happens. Where there is no flock, as on Windows and some network disks, nothing is marked: a model
is read into memory when it is loaded, and only plans would be missed. Knows no models.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from sparity_edge.system.leftovers import is_locked


class UseMark:
    """Files and folders are in use for as long as this is open.

    Usable as a context manager.

    Args:
        paths: what is in use; what cannot be marked is left out.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._opened: list[int] = []
        if sys.platform == "win32":
            return
        import fcntl

        for path in paths:
            with contextlib.suppress(OSError):
                self._opened.append(os.open(path, os.O_RDONLY))
                fcntl.flock(self._opened[-1], fcntl.LOCK_SH | fcntl.LOCK_NB)

    def close(self) -> None:
        """Let go of the marks."""
        while self._opened:
            os.close(self._opened.pop())

    def __del__(self) -> None:
        self.close()

    def __enter__(self) -> UseMark:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def in_use(paths: Iterable[Path]) -> bool:
    """Whether a process, this one included, has marked one of them, or is writing it.

    Args:
        paths: files, as `UseMark` takes them.
    """
    return any(map(is_locked, paths))
