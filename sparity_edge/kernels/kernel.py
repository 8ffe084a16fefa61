"""Kernel: a Python function that becomes machine code the first time its address is asked for.

Kernels have one shape, so that one loop can run them all: `kernel(arguments, chunk, scratch)`.
`arguments` is the address of its argument block (`words`), `chunk` the part of the work to do,
`scratch` the address of memory that belongs to the calling thread alone. What a chunk writes
depends on its number and never on the thread: that is why any thread count gives the same bits.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numba import config, njit, types
from numba.core.ccallback import CFunc
from numba.core.registry import cpu_target

from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.code_cache import CodeCache, NotKept
from sparity_edge.kernels.device_code import linked, no_garbage_collection
from sparity_edge.kernels.words import Words
from sparity_edge.system.folders import kernel_root
from sparity_edge.system.memory import COMPILER, give_code_back

device = linked  # for functions that kernels call
# For device functions that are called for every row of some hundred bytes: a call costs 10 ns.
inlined = functools.partial(linked, inline=True)
_SIGNATURE = (types.int64,) * 3, types.void
# Files outside of kernels/ whose constants reach machine code.
OUTSIDE = (
    "arrays.py",
    "packed/bundle.py",
    "packed/lane_rows.py",
    "packed/layout.py",
    "plans/plan.py",
)


@contextlib.contextmanager
def cache_of_these_kernels() -> Iterator[None]:
    """What is declared inside is cached in a folder named after source of all kernels and CPU.

    Numba looks at the file of a function only, not at those of the functions it calls: a change
    there would go on running the old machine code.
    """
    folder = kernel_root() / version_of_kernels()
    before = config.CACHE_DIR
    try:
        folder.mkdir(parents=True, exist_ok=True)
        config.CACHE_DIR = str(folder)
    except OSError:
        pass  # Numba then looks for a place of its own
    try:
        yield
    finally:
        config.CACHE_DIR = before


@functools.cache
def version_of_kernels() -> str:
    """What changes with the source of any kernel and with the CPU, 16 hex digits.

    Numba keeps CPUs apart in the index of one file; processes of two CPUs that write it at once,
    in a home folder that machines share, would leave one with the machine code of the other.
    """
    source = digest_of(Path(__file__).parent.parent)
    target = cpu_target.target_context.codegen().magic_tuple()
    return hashlib.sha256(f"{source} {target} {CHECKED}".encode()).hexdigest()[:16]


def digest_of(package: Path) -> str:
    """What the names and contents of all files give that kernels take code or constants from.

    Args:
        package: the folder of `sparity_edge`.
    """
    content = hashlib.sha256()
    kernels = sorted((package / "kernels").rglob("*.py"))
    for path in (*kernels, *(package / name for name in OUTSIDE)):
        source = path.read_bytes()
        content.update(f"{path.relative_to(package).as_posix()} {len(source)} ".encode())
        content.update(source)
    return content.hexdigest()[:16]


_AT_WORK: list[str] = []  # kernels compiled or fetched since the compiler last rested


def let_compiler_rest() -> None:
    """Take the compiler's own code out of memory if it has been at work since last time (Linux).

    It is 70 MB, a third of what a process would hold beside weights and cache.
    """
    if _AT_WORK:
        _AT_WORK.clear()
        give_code_back(COMPILER)


def entry(function: Callable[..., Any]) -> Any:
    """Declare a function that Python calls and whose machine code is kept.

    Division by zero gives inf as IEEE says; no other relaxation: inf and NaN have to propagate.
    """
    made = njit(error_model="numpy", nogil=True)(function)
    made._cache = CodeCache(function)
    return made


class Kernel:
    """Decorator that declares `function(arguments, chunk, scratch)` as a kernel.

    Args:
        words: its argument block, or the names of its words.
        table: of a kernel of several tokens, the argument block of each of them.
    """

    def __init__(self, words: Words | str, table: Words | None = None) -> None:
        self.words = Words(words) if isinstance(words, str) else words
        self.table = table
        self._compiled: Any = None
        self._address = 0

    def __call__(self, function: Callable[[int, int, int], None]) -> Kernel:
        """Declare a function."""
        self.name = function.__name__
        self.module = function.__module__
        self.__doc__ = function.__doc__
        self._function = function
        return self

    @property
    def compiled(self) -> bool:
        """Whether `address` costs nothing."""
        return self._compiled is not None

    @property
    def was_cached(self) -> bool:
        """Whether `address` fetched machine code that an earlier run had compiled."""
        return self._compiled is not None and self._compiled.cache_hits > 0

    @property
    def address(self) -> int:
        """The address of the machine code, compiled or fetched from Numba's cache on first use."""
        if self._compiled is None:
            with cache_of_these_kernels(), no_garbage_collection():
                try:
                    self._take(CodeCache(self._function))
                except OSError:  # it cannot be kept, as on a full disk: for this run only
                    self._take(None)
        return self._address

    def fetched(self) -> bool:
        """Whether `address` takes no compiling; what an earlier run has kept is fetched now."""
        if self._compiled is None:
            with cache_of_these_kernels(), contextlib.suppress(NotKept, OSError):
                self._take(CodeCache(self._function, only_kept=True))
        return self.compiled

    def _take(self, cache: CodeCache | None) -> None:
        made: Any = CFunc(self._function, _SIGNATURE, {}, {"error_model": "numpy"})
        if cache is not None:
            made._cache = cache
        made.compile()
        self._compiled = made
        self._address = int(made.address)
        _AT_WORK.append(self.name)
