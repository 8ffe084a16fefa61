"""Keys that are typed while something else is written: kept for the next line, and not echoed.

The terminal goes on collecting lines and hearing Ctrl-C and Ctrl-Z; only its echo is off. Whoever
suspends the program gets the terminal back as it was. Without termios (Windows), or where stdin is
no terminal, nothing is done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

try:
    import termios
except ImportError:  # Windows
    termios = None  # type: ignore[assignment]

LOCAL_MODES = 3  # index of the flags that hold ECHO


@contextlib.contextmanager
def unechoed_keys() -> Iterator[None]:
    """Turn the terminal's echo off for a while, in the main thread."""
    terminal = _terminal()
    if terminal is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _echoes(terminal):  # somebody around this has turned it off
        yield
        return
    with _signals(terminal):
        _set_echo(terminal, on=False)
        try:
            yield
        finally:
            _set_echo(terminal, on=True)


@contextlib.contextmanager
def _signals(terminal: int) -> Iterator[None]:
    """Ctrl-Z gives the echo back to the shell, and going on takes it again."""

    def suspend(number: int, _: FrameType | None) -> None:
        _set_echo(terminal, on=True)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # in this very thread: what follows happens after SIGCONT
        signal.signal(number, suspend)
        _set_echo(terminal, on=False)

    def go_on(_: int, __: FrameType | None) -> None:
        _set_echo(terminal, on=False)

    handlers = {signal.SIGTSTP: suspend, signal.SIGCONT: go_on}
    taken = [number for number in handlers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _terminal() -> int | None:
    """The descriptor of stdin, where that is a terminal."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if termios is not None and sys.stdin.isatty() and os.isatty(sys.stdin.fileno()):
            return sys.stdin.fileno()
    return None


def _echoes(terminal: int) -> bool:
    with contextlib.suppress(termios.error):
        return bool(termios.tcgetattr(terminal)[LOCAL_MODES] & termios.ECHO)
    return False


def _set_echo(terminal: int, *, on: bool) -> None:
    """Change the echo, unless the terminal is another job's: the system would stop this one."""
    with contextlib.suppress(termios.error, OSError):
        if os.tcgetpgrp(terminal) != os.getpgrp():
            return
        modes = termios.tcgetattr(terminal)
        modes[LOCAL_MODES] &= ~termios.ECHO
        modes[LOCAL_MODES] |= termios.ECHO if on else 0
        termios.tcsetattr(terminal, termios.TCSADRAIN, modes)
