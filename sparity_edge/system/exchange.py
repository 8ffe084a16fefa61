"""Two files or folders of one file system exchange their names in one step, where a system can.

Linux has renameat2 with RENAME_EXCHANGE, macOS renamex_np with RENAME_SWAP. Windows has nothing of
the kind, and some file systems have not either: then nothing has happened, and the caller renames
one after the other.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_AT_FDCWD = -100  # Linux: paths are relative to the current folder
_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h, RENAME_SWAP of sys/stdio.h


def exchange(one: Path, other: Path) -> bool:
    """Whether two paths that exist have exchanged their names; if not, they are as they were."""
    if sys.platform == "win32":
        return False
    library = ctypes.CDLL(None)
    names = os.fsencode(one), os.fsencode(other)
    try:
        if sys.platform == "darwin":
            return bool(library.renamex_np(*names, _EXCHANGE) == 0)
        return bool(library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) == 0)
    except AttributeError:  # a C library of before 2018
        return False
