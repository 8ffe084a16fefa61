"""How many threads to run, how they give way, and whether the compiler of kernels may work."""

from __future__ import annotations

import ctypes
import os

from sparity_edge.errors import OptionError

# Threads meet at a barrier hundreds of times a token: one that the system does not run holds up all
# the others, so 1000 on 2 cores take 5 s a token. A few a core are for experiments.
THREADS_A_CORE = 4
ALWAYS_ALLOWED = 8


def checked_threads(threads: int | None) -> int:
    """The number of threads asked for, or the default."""
    if threads is None:
        return default_threads()
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise OptionError(f"threads={threads!r} is not a whole number above 0.")
    if threads > ALWAYS_ALLOWED and threads > (most := THREADS_A_CORE * _allowed_cores()):
        raise OptionError(
            f"threads={threads} would wait for each other most of the time; use "
            f"{default_threads()}, the default here, or at most {max(most, ALWAYS_ALLOWED)}."
        )
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

    return max(1, min(_allowed_cores(), psutil.cpu_count(logical=False) or 1))


def _allowed_cores() -> int:
    """The logical cores this process may use."""
    import psutil

    if hasattr(psutil.Process, "cpu_affinity"):
        return len(psutil.Process().cpu_affinity())
    return psutil.cpu_count() or 1


def yield_address() -> int:
    """The address of the system's call that lets another thread have the core."""
    if os.name == "nt":
        function = ctypes.windll.kernel32.SwitchToThread  # type: ignore[attr-defined]
    else:
        function = ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0
