"""Compilers: the kernels of a model compiled in several processes at once.

Numba compiles one function at a time and holds the interpreter while it does. So where kernels are
not in the cache, processes are started that compile beside this one; what they compile, this one
then fetches from the cache; `main` is what such a process runs. Without a second core, or an
interpreter that can be started again, all is compiled here. What can wait is compiled behind the
work of the model, by a process of low priority that ends with this one.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sparity_edge.kernels.kernel import Kernel, let_compiler_rest
from sparity_edge.progress import Progress
from sparity_edge.system.threads import default_threads

MOST = 4  # processes with this one: gemm_words alone takes a quarter of the time of all
FEWEST = 4  # kernels that are worth a process, which takes half a second to start
_PACKAGE = __name__.partition(".")[0]
# This very package and no other that lies in the working folder, as in a clone: Numba's cache keeps
# the kernels of different files apart.
_BESIDE = (
    "import sys; sys.path = [sys.argv[1], *filter(None, sys.path)]; "
    f"from {__name__} import main; main()"
)


def compile_kernels(
    kernels: Iterable[Kernel], progress: Progress, besides: Callable[[], None] | None = None
) -> None:
    """Compile what is not compiled yet, telling how far it is.

    Args:
        kernels: what is needed.
        progress: is told how many there are.
        besides: what else is to be compiled in this process.
    """
    wanted = list(kernels)
    progress("compiling kernels", 0, len(wanted))
    # Short ones stand first in the table of kernels and long ones last: a long one at the end
    # would be waited for.
    left = deque(reversed([each for each in wanted if not each.fetched()]))
    with _beside(left):
        if besides is not None:
            besides()
        for each in _taken_from(left):
            _ = each.address
            progress("compiling kernels", len(wanted) - len(left), len(wanted))
    for each in wanted:  # those that were compiled beside
        _ = each.address
    progress("compiling kernels", len(wanted), len(wanted))
    let_compiler_rest()


def _taken_from(left: deque[Kernel]) -> Iterator[Kernel]:
    """One kernel after another, while other threads take some as well."""
    while left:
        with contextlib.suppress(IndexError):
            yield left.popleft()


@contextlib.contextmanager
def _beside(left: deque[Kernel]) -> Iterator[None]:
    """Processes that take kernels from the end of work too, for as long as there are any."""
    count = min(default_threads(), MOST) - 1 if len(left) >= FEWEST else 0
    processes = [each for each in (_start() for _ in range(count)) if each is not None]
    threads = [threading.Thread(target=_feed, args=(each, left)) for each in processes]
    for thread in threads:
        thread.start()
    try:
        yield
        for thread in threads:
            thread.join()
    finally:
        left.clear()
        for process in processes:
            process.kill()
        for thread, process in zip(threads, processes):
            thread.join()
            process.communicate()


def compile_behind(kernels: Iterable[Kernel]) -> None:
    """Have another process of low priority compile what is not kept yet, for `Kernel.fetched`.

    Returns at once. A process at a time, and every kernel is asked for once.

    Args:
        kernels: what will be needed.
    """
    if any(each.poll() is None for each in _BEHIND):
        return
    _BEHIND.clear()
    wanted = [each for each in kernels if each.name not in _ASKED and not each.fetched()]
    process = _start(_LOW) if wanted else None
    if process is None:
        return
    _ASKED.update(each.name for each in wanted)
    _BEHIND.append(process)
    atexit.register(_end, process, os.getpid())
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it has ended already
        process.stdin.write("".join(f"{each.module} {each.name}\n" for each in wanted))
        process.stdin.close()


_BEHIND: list[subprocess.Popen[str]] = []  # what compiles behind
_ASKED: set[str] = set()  # names of kernels that one of them was to compile
_LOW = "low"  # priority


def _end(process: subprocess.Popen[str], owner: int) -> None:
    """End a process, unless this one was forked from its owner."""
    if os.getpid() == owner:
        process.kill()
        process.wait()


def _start(*arguments: str) -> subprocess.Popen[str] | None:
    """A process that compiles, with these arguments of `main`; None where none can be started."""
    if not sys.executable or getattr(sys, "frozen", False):
        return None
    home = str(Path(sys.modules[_PACKAGE].__file__ or "").resolve().parent.parent)
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _BESIDE, home, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except OSError:
        return None


def _feed(process: subprocess.Popen[str], left: deque[Kernel]) -> None:
    """Hand a process one kernel after another; what it leaves undone is compiled here later."""
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError, ValueError):
        for kernel in _taken_from(left):
            process.stdin.write(f"{kernel.module} {kernel.name}\n")
            process.stdin.flush()
            if not process.stdout.readline():
                return


def main() -> None:
    """Compile the kernels that standard input names, a module and a name a line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with the process that started it
    if _LOW in sys.argv[2:] and hasattr(os, "nice"):
        os.nice(19)
    for line in sys.stdin:
        module, name = line.split()
        _ = getattr(importlib.import_module(module), name).address
        print(name, flush=True)
