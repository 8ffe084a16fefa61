"""Room on a disk: how much there is, whether it is enough, and whether a failure means it is not.

Knows nothing of what is written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_WORDS = ("No space left on device", "Disk quota exceeded", "not enough space on the disk")


def nearest(path: Path) -> Path:
    """The path, or the nearest of its parents that exists."""
    path = path.absolute()
    return next((each for each in (path, *path.parents) if os.path.lexists(each)), path)


def free_bytes(path: Path) -> int | None:
    """Bytes left on the disk that a path is or will be on; None where nobody knows."""
    with contextlib.suppress(OSError):
        return shutil.disk_usage(nearest(path)).free
    return None


def shortage(path: Path, needed: int) -> str | None:
    """What is needed and what there is, as the middle of a sentence; None where it is enough."""
    free = free_bytes(path)
    if free is None or free >= needed:
        return None
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        texts = f"{needed / size:.1f}", f"{free / size:.1f}"
        if texts[0] != texts[1] and needed >= size:
            return f"it needs {texts[0]} {unit} and the disk has {texts[1]} {unit} free"
    return f"it needs {needed} bytes and the disk has {free} bytes free"


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the disk or the user's share is full."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if says_full(str(error)):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def says_full(text: str) -> bool:
    """Whether another program's words mean that the disk is full."""
    return any(word in text for word in _WORDS)
