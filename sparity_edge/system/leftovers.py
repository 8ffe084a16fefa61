"""Temporary files and folders of ours, and which of them are leftovers of processes that are gone.

Their names say on which machine which process made them and when that began; while it writes, it
holds a lock on them where the system has flock. One that is locked, or whose process lives, is
never a leftover: lock and process are asked both, since a lock does not reach every network disk
and a process id does not reach out of a container.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import shutil
import sys
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

FOREIGN_SECONDS = 24 * 3600  # age at which what another machine began counts as dead
# Age at which a calibration that was interrupted counts as given up; until then it can go on.
GIVEN_UP_SECONDS = 30 * 24 * 3600
CALIBRATIONS = "calibrations"  # the folder that holds them
_FORMER = "former00"  # in the place of the random digits: the folder that is being replaced
_NAME = re.compile(
    r"\.(?P<of>.+)\.partial-(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)(-(?P<began>\d+))?"
    r"-(?P<token>[0-9a-f]{8}|former00)",
    re.DOTALL,
)


_KEY = re.compile(r"[0-9a-f]{64}")


def partial_name(name: str) -> str:
    """A fresh hidden name beside `name` that says who made it."""
    return _name(name, secrets.token_hex(4))


def former_name(name: str) -> str:
    """The hidden name of what `name` stood for while it is replaced; it may have to come back."""
    return _name(name, _FORMER)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock on a temporary file or folder, under whatever name, for as long as it is written.

    The system lets go of it when the process ends, however that happens. Where there is no flock,
    the process id has to do.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network disk without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def is_leftover(path: Path) -> bool:
    """Whether `path` is a temporary file or folder of ours that nobody writes any more.

    A calibration that was interrupted is none before it is given up.
    """
    if path.parent.name == CALIBRATIONS and _KEY.fullmatch(path.name):
        return _is_older(path, GIVEN_UP_SECONDS) and not is_locked(path)
    made = _NAME.fullmatch(path.name)
    if made is None or path.is_symlink() or is_locked(path):
        return False
    if made["machine"] != _machine():
        return _is_older(path, FOREIGN_SECONDS)
    return not _lives(int(made["pid"]), int(made["began"] or 0))


def leftovers(folders: Iterable[Path]) -> list[Path]:
    """What ended processes left behind in folders, and in the folders directly inside these."""
    found: set[Path] = set()
    for folder in folders:
        inside = _entries(folder)
        for path in (folder, *(each for each in inside if _is_folder(each))):
            found.update(each.absolute() for each in _entries(path) if is_leftover(each))
    return sorted(found)


def remove_leftovers(folder: Path) -> None:
    """Remove what ended processes left behind in a folder; best effort.

    A folder that was being replaced, and was killed before its successor had its name, comes back.
    """
    for path in _entries(folder):
        if is_leftover(path) and not _put_back(path):
            remove_leftover(path)


def remove_leftover(path: Path) -> None:
    """Remove a leftover; best effort."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink()


def _put_back(path: Path) -> bool:
    made = _NAME.fullmatch(path.name)
    if made is None or made["token"] != _FORMER or os.path.lexists(path.with_name(made["of"])):
        return False
    with contextlib.suppress(OSError):
        path.rename(path.with_name(made["of"]))
        return True
    return False


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_older(path: Path, seconds: float) -> bool:
    with contextlib.suppress(OSError):
        return not path.is_symlink() and time.time() - path.stat().st_mtime > seconds
    return False


def is_locked(path: Path) -> bool:
    """Whether some process, this one included, holds the lock of `held`."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _name(name: str, token: str) -> str:
    pid = os.getpid()
    return f".{name}.partial-{_machine()}-{pid}-{_began(pid)}-{token}"


def _machine() -> str:
    """A short mark of this host: on a shared disk its process ids mean nothing elsewhere."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _lives(pid: int, began: int) -> bool:
    """Whether a process is there that began then (0: unknown), and no later one with its id."""
    import psutil

    try:
        there = psutil.pid_exists(pid)
    except OverflowError:
        return False
    now = _began(pid)
    return there and (not began or not now or now == began)


def _began(pid: int) -> int:
    """When a process began, in a unit of the system's; 0 where that is not told.

    Linux: ticks since the machine started, which no change of the clock moves.
    """
    if sys.platform == "linux":
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
                return int(file.read().rpartition(b")")[2].split()[19])
        except (OSError, ValueError, IndexError):
            return 0
    import psutil

    try:
        return int(psutil.Process(pid).create_time())
    except (psutil.Error, OverflowError):
        return 0
