"""Giving memory back to the system that is held and not needed: free heap, and the compiler's code.

Both only where the system has a call for it; elsewhere nothing happens. Nothing is lost: pages of
code come back from the system's page cache the next time they are run.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import re
from collections.abc import Iterator
from pathlib import Path

COMPILER = "llvmlite"  # LLVM; 40 MB of it are in memory once it is imported, 70 once it has worked

# The line of a mapping of a library, and the first line after it that counts pages written to.
_MAPPING = rb"^([0-9a-f]+)-([0-9a-f]+) (\S+) .*/[^/\n]*%s[^/\n]*\n(?:\w+: .*\n)*?Anonymous: +(\d+)"


def give_heap_back() -> None:
    """Return what the heap keeps free, where the C library has a call for that.

    Parsing the tokenizer.json of a vocabulary of 151,000 leaves 57 MB of it (glibc), of 49,000 15.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # musl, macOS, Windows
        ctypes.CDLL(None).malloc_trim(0)


def give_code_back(library: str) -> None:
    """Let go of the pages of a library that are as they stand in its file (Linux).

    Args:
        library: part of the file's name.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        advise = ctypes.CDLL(None).madvise
        for start, size in unwritten_pages(library):
            advise(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


def unwritten_pages(library: str) -> Iterator[tuple[int, int]]:
    """Addresses and sizes of mappings of a file that cannot be written and never were.

    The loader writes addresses into some mappings and closes them then: those are left out.

    Raises:
        OSError: the system does not tell.
    """
    mapping = _MAPPING % re.escape(library.encode())
    for found in re.finditer(mapping, Path("/proc/self/smaps").read_bytes(), re.MULTILINE):
        start, stop, access, written = found.groups()
        if b"w" not in access and int(written) == 0:
            yield int(start, 16), int(stop, 16) - int(start, 16)
