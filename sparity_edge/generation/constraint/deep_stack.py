"""Work on a stack that is deep enough for what a stranger wrote.

A library that descends once for every level of its input ends the process where the stack ends, and
the threads of a server have small ones. Knows nothing of grammars.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from sparity_edge.errors import ResourceError

Result = TypeVar("Result")

_lock = threading.Lock()  # for the size counts for every thread that begins meanwhile


def on_deep_stack(work: Callable[[], Result], size: int) -> Result:
    """What some work returns, or raises, done by a thread of its own; one at a time.

    Args:
        work: to do.
        size: bytes of address space for the stack; memory is taken as far as it is used.

    Raises:
        ResourceError: there is no such address space.
    """
    found: list[Any] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as error:  # raised again below, by whoever asked
            raised.append(error)

    with _lock:
        before = threading.stack_size(size)
        try:
            thread = threading.Thread(target=run, name="deep-stack", daemon=True)
            thread.start()
        except RuntimeError:
            raise ResourceError(
                f"A thread with a stack of {size >> 20} MB cannot be had; raise the limit of the "
                "process's address space (ulimit -v)."
            ) from None
        finally:
            threading.stack_size(before)
        thread.join()
    if raised:
        raise raised[0]
    result: Result = found[0]
    return result
