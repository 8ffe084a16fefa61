"""A folder, or a file, that appears complete or not at all.

It is filled under a hidden temporary name beside its destination and renamed at the end; what a
killed run left behind goes with the next run. Knows nothing of what is in a folder: the caller says
whether an existing one may be replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import secrets
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

from sparity_edge.errors import FormatError

FOREIGN_STALE_SECONDS = 24 * 3600  # age at which another machine's leavings count as dead

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    getattr(errno, "EDQUOT", errno.ENOSPC): "the disk quota is used up; free some space",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission is denied; choose another folder",
    errno.EPERM: "permission is denied; choose another folder",
}


@contextlib.contextmanager
def one_sentence(out: Path) -> Iterator[None]:
    """Turn an `OSError` of writing below `out` into a `FormatError`."""
    try:
        yield
    except OSError as error:
        code = error.errno if error.errno is not None else -1
        reason = _REASONS.get(code) or f"{error.strerror or error}; choose another folder"
        raise FormatError(f"{out} cannot be written: {reason}.") from error


class AtomicFolder:
    """Context manager around a folder to be written; `commit` gives it its name.

    Left without `commit`, or through an exception, it removes everything it wrote.

    Args:
        out: the destination; parents are made.
        force: whether an existing `out` may be replaced.
        refuse_foreign: called with an existing `out` before it is replaced; raises when that
            folder is none of ours.

    Raises:
        FormatError: `out` exists, is foreign, or cannot be written.
    """

    def __init__(self, out: Path, *, force: bool, refuse_foreign: Callable[[Path], None]) -> None:
        # Through a symbolic link the folder it points at is meant, not the link.
        self.out = Path(os.path.realpath(out))
        if not self.out.name:
            raise FormatError(f"{out} cannot be written: it is the root folder; name another.")
        self._force = force
        self._refuse_foreign = refuse_foreign
        self.temporary = self.out.with_name(partial_name(self.out.name))

    def __enter__(self) -> AtomicFolder:
        self._check_destination()
        with one_sentence(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            remove_stale(self.out.parent, self.out.name)
            self.temporary.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)

    def commit(self) -> None:
        """Move the folder to its destination; a former one there is removed afterwards."""
        self._check_destination()
        with one_sentence(self.out):
            sync_folder(self.temporary)
            if not self.out.exists():
                self.temporary.rename(self.out)
            else:
                self._swap()
            sync_folder(self.out.parent)

    def _swap(self) -> None:
        former = self.out.with_name(partial_name(self.out.name))
        self.out.rename(former)
        try:
            self.temporary.rename(self.out)
        except OSError:
            former.rename(self.out)
            raise
        shutil.rmtree(former, ignore_errors=True)

    def _check_destination(self) -> None:
        if not os.path.lexists(self.out):
            return
        if not self._force:
            raise FormatError(f"{self.out} exists already; choose another name or use --force.")
        self._refuse_foreign(self.out)


def replace_file(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file in the place of a former one, or leave that as it is.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(partial_name(path.name))
    try:
        with temporary.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have the names in a folder on disk; Windows neither needs nor offers it."""
    if sys.platform != "win32":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_stale(parent: Path, name: str) -> None:
    """Remove what was to become `name` in `parent` and whose processes are gone."""
    for entry in os.scandir(parent):
        if entry.name.startswith(f".{name}.partial-") and is_stale(Path(entry.path)):
            if entry.is_dir():
                shutil.rmtree(entry.path, ignore_errors=True)
                continue
            with contextlib.suppress(OSError):
                Path(entry.path).unlink()


def is_stale(path: Path) -> bool:
    """Whether `path` is a temporary folder or file of ours that nobody writes any more."""
    if not path.name.startswith(".") or path.is_symlink():
        return False
    parts = path.name.rpartition(".partial-")[2].split("-")
    if len(parts) != 3 or not parts[1].isdigit():
        return False
    if parts[0] != _machine():
        with contextlib.suppress(OSError):
            return time.time() - path.stat().st_mtime > FOREIGN_STALE_SECONDS
        return False
    return not _alive(int(parts[1]))


def partial_name(name: str) -> str:
    """A fresh hidden name beside `name`, by which `is_stale` knows who made it."""
    return f".{name}.partial-{_machine()}-{os.getpid()}-{secrets.token_hex(4)}"


def _machine() -> str:
    """A short mark of this host: on a shared disk its process ids mean nothing elsewhere."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _alive(pid: int) -> bool:
    if sys.platform == "win32":
        import ctypes

        query = 0x1000  # PROCESS_QUERY_LIMITED_INFORMATION; os.kill would end the process
        handle = ctypes.windll.kernel32.OpenProcess(query, False, pid)
        if handle:
            ctypes.windll.kernel32.CloseHandle(handle)
        return bool(handle)
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it is there and belongs to somebody else
    return True
