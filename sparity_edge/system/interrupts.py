"""Signals that end a command: Ctrl-C raises KeyboardInterrupt, SIGTERM and SIGHUP SystemExit.

Both unwind the command, so that what it has half written is removed. Python drops exceptions in
finalizers and in callbacks from C, where imports and the compiler spend much of their time, and
prints a traceback. Here such a signal comes again a moment later instead.
"""

from __future__ import annotations

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn

AGAIN = 0.01  # seconds: long enough to be out of the finalizer


# What a shutdown, a service manager, a closed terminal window and Ctrl-Break send.
ENDING = ("SIGTERM", "SIGHUP", "SIGBREAK")


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt at Ctrl-C, and note the numbers of signals in the list that is given.

    Signals that end a process raise SystemExit with the exit code that a shell would report, once:
    the command only tidies up from then on. What whoever started us has had ignored stays ignored:
    nohup does so with SIGHUP, and a shell with Ctrl-C of what runs in the background.
    """
    heard: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard
        return
    handlers: dict[int, Any] = {
        getattr(signal, name): _ending(heard) for name in ENDING if hasattr(signal, name)
    }
    handlers[signal.SIGINT] = _interrupting(heard)
    before = {number: signal.getsignal(number) for number in handlers}
    taken = [number for number in handlers if before[number] not in (None, signal.SIG_IGN)]
    hook = sys.unraisablehook
    if signal.SIGINT in taken:
        sys.unraisablehook = partial(_come_again, heard)
    for number in taken:
        signal.signal(number, handlers[number])
    try:
        yield heard
    finally:
        for number in taken:
            signal.signal(number, before[number])
        sys.unraisablehook = hook


def _interrupting(heard: list[int]) -> Callable[[int, object], NoReturn]:
    def hear(number: int, _: object) -> NoReturn:
        heard.append(number)
        raise KeyboardInterrupt

    return hear


def _ending(heard: list[int]) -> Callable[[int, object], None]:
    def end(number: int, _: object) -> None:
        if any(each != signal.SIGINT for each in heard):
            return
        heard.append(number)
        raise SystemExit(128 + number)

    return end


def _come_again(heard: list[int], dropped: Any) -> None:
    """What Python calls with an exception that nobody can catch."""
    if not heard or not issubclass(dropped.exc_type, KeyboardInterrupt | SystemExit):
        sys.__unraisablehook__(dropped)
        return
    number = heard[-1]
    if number != signal.SIGINT:
        heard.remove(number)  # else it would count as heard already
    again = threading.Timer(AGAIN, _thread.interrupt_main, (number,))
    again.daemon = True
    again.start()
