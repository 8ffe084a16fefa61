"""A folder, or a file, that appears complete or not at all.

It is filled under a hidden temporary name beside its destination and renamed at the end; what a
killed run left behind goes with the next run in that folder (leftovers.py knows which are dead).
Knows nothing of what is in a folder: the caller says whether an existing one may be replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

from sparity_edge.errors import FormatError
from sparity_edge.system.exchange import exchange
from sparity_edge.system.leftovers import former_name, held, partial_name, remove_leftovers

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
        self._held = contextlib.ExitStack()
        self.temporary = self.out.with_name(partial_name(self.out.name))

    def __enter__(self) -> AtomicFolder:
        self._check_destination()
        with one_sentence(self.out):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(temporary_folder(self.temporary))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._held.close()

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
        if exchange(self.temporary, self.out):
            return  # what now has the temporary name goes with `__exit__`
        former = self.out.with_name(former_name(self.out.name))
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


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[None]:
    """Make a folder that has a `partial_name`, and remove it at the end, if it still has that.

    Raises:
        OSError: it cannot be made.
    """
    remove_leftovers(path.parent)
    path.mkdir()
    try:
        with held(path):
            yield
    finally:
        shutil.rmtree(path, ignore_errors=True)


def replace_file(path: Path, parts: Iterable[bytes | memoryview], *, private: bool = False) -> None:
    """Write a file in the place of a former one, or leave that as it is.

    Args:
        path: the file.
        parts: its content.
        private: whether only its owner may read it.

    Raises:
        OSError: it cannot be written.
    """
    remove_leftovers(path.parent)
    temporary = path.with_name(partial_name(path.name))
    try:
        with temporary.open("xb") as file, held(temporary):
            if private:
                temporary.chmod(0o600)
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
