"""What a process holds in memory: the compiler's code is given back, what was written is not."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sparity_edge import Generator
from sparity_edge.kernels import kernel
from sparity_edge.measure.fresh import in_fresh_process, peak_memory
from sparity_edge.system import memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
MOST = 200e6  # bytes that a process may hold beside weights and cache
# Files that pip has just written lie in large folios of the page cache, and the kernel maps such a
# folio whole: LLVM's library then counts 45 MB more than when it was read from the disk.
JUST_INSTALLED = 50e6


def resident(library: str) -> int:
    """Bytes of a library's file in memory, as they stand in the file."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.split()[0].endswith(":"):
            inside = library in line
        elif inside and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
        elif inside and line.startswith("Anonymous:"):
            found -= 1024 * int(line.split()[1])
    return found


@linux
def test_code_is_given_back_and_comes_again() -> None:
    import llvmlite.binding as llvm

    before = llvm.parse_assembly("define i32 @f() { ret i32 1 }")
    assert resident(memory.COMPILER) > 1e6
    memory.give_code_back(memory.COMPILER)
    assert resident(memory.COMPILER) < 1e6
    again = llvm.parse_assembly("define i32 @f() { ret i32 1 }")
    assert str(again) == str(before)


@linux
def test_written_pages_stay(tmp_path: Path) -> None:
    """Mappings of a file that were written to and then closed are not among those to give back."""
    size = 4 * mmap.PAGESIZE
    path = tmp_path / "library-of-the-test.so"
    path.write_bytes(bytes(size))
    with path.open("r+b") as file:
        kept = mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE)
        read = mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    kept[:3] = b"new"
    address = ctypes.addressof(ctypes.c_char.from_buffer(kept))
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), size, mmap.PROT_READ) == 0
    assert read[:1] == b"\0"
    found = list(memory.unwritten_pages("library-of-the-test"))
    memory.give_code_back("library-of-the-test")
    assert len(found) == 1
    assert found[0][0] != address
    assert kept[:3] == b"new"


def test_compiler_rests_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(kernel, "give_code_back", calls.append)
    monkeypatch.setattr(kernel, "_AT_WORK", ["a kernel"])
    kernel.let_compiler_rest()
    kernel.let_compiler_rest()
    assert calls == [memory.COMPILER]


@linux
def test_a_process_holds_little_beside_weights_and_cache(
    checkpoint: Callable[[str], Path],
) -> None:
    with Generator.load(checkpoint("llama_untied"), threads=2) as generator:
        generator.compile()  # so that the other process finds the kernels
        path = generator.path
    found = in_fresh_process(peak_memory, path, 2, 64)
    assert found["beyond_weights_and_cache"] < MOST + JUST_INSTALLED
    assert found["rss"] < MOST * 0.75  # LLVM's 70 MB are gone
