"""Ctrl-C while a command runs: it raises KeyboardInterrupt, and is not lost where Python drops it.

Python drops exceptions in finalizers and in callbacks from C, where imports and the compiler spend
much of their time, and prints a traceback. Here such a Ctrl-C comes again a moment later instead.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

AGAIN = 0.01  # seconds: long enough to be out of the finalizer


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt at Ctrl-C, and take note of it in the list that is given."""
    heard: list[int] = []

    def hear(number: int, _: object) -> NoReturn:
        heard.append(number)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    main_thread = threading.current_thread() is threading.main_thread()
    if before in (None, signal.SIG_IGN) or not main_thread:  # None, ignored: by whoever started us
        yield heard
        return
    hook = sys.unraisablehook
    sys.unraisablehook = _come_again
    signal.signal(signal.SIGINT, hear)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = hook


def _come_again(dropped: Any) -> None:
    """What Python calls with an exception that nobody can catch."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)
        return
    again = threading.Timer(AGAIN, _thread.interrupt_main)
    again.daemon = True
    again.start()
