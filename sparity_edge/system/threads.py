"""How many threads to run, and whether the compiler of kernels may work."""

from __future__ import annotations

import os

from sparity_edge.choices import MAX_THREADS
from sparity_edge.errors import OptionError


def checked_threads(threads: int | None) -> int:
    """The number of threads asked for, or the default."""
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise OptionError(f"threads={threads!r} is not a whole number from 1 to {MAX_THREADS}.")
    return threads


def demand_compiler() -> None:
    """Refuse to run where Numba is told not to compile: kernels work on addresses.

    Raises:
        OptionError: NUMBA_DISABLE_JIT is set.
    """
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        raise OptionError("NUMBA_DISABLE_JIT is set, and kernels have to be compiled; unset it.")


def default_threads() -> int:
    """The physical cores this process may use; a core's second thread adds no bandwidth."""
    import psutil

    logical, physical = psutil.cpu_count() or 1, psutil.cpu_count(logical=False) or 1
    allowed = logical
    if hasattr(psutil.Process, "cpu_affinity"):
        allowed = len(psutil.Process().cpu_affinity())
    return max(1, min(allowed, physical))
