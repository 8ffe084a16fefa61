"""Keys typed while the program writes: not echoed, kept for the next line, and Ctrl-Z."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

import pytest

from sparity_edge.terminal.keyboard import unechoed_keys

pty = pytest.importorskip("pty", reason="Windows has no pseudo terminals")
termios = pytest.importorskip("termios", reason="Windows has no terminals of POSIX")

# A shell of one job: it gives the job the terminal, and takes it back when the job is suspended.
SHELL = """
import os, signal, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    from sparity_edge.terminal.keyboard import unechoed_keys
    import time
    with unechoed_keys():
        print("writing", os.getpid(), "", flush=True)
        try:
            while True:
                time.sleep(0.01)
        except KeyboardInterrupt:
            pass
    print("read:", input(), flush=True)
    os._exit(0)
while True:
    _, status = os.waitpid(child, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        break
    os.tcsetpgrp(0, os.getpid())
    echo = bool(termios.tcgetattr(0)[3] & termios.ECHO)
    print("stopped, echo", echo, flush=True)
    input()
    os.tcsetpgrp(0, child)
    os.killpg(child, signal.SIGCONT)
"""


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_keys_are_kept_and_ctrl_z_gives_the_echo_back() -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", SHELL])
    seen = ""

    def shows(text: str) -> None:
        nonlocal seen
        while text not in seen:
            seen += os.read(terminal, 4096).decode()

    def echoes() -> bool:
        return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)

    shows(" \r\n")
    job = int(seen.split()[1])
    assert not echoes()
    os.write(terminal, b"first ")
    time.sleep(0.2)
    os.write(terminal, b"\x1a")
    shows("stopped, echo True")
    assert "first" not in seen
    os.write(terminal, b"fg\n")
    until(lambda: not echoes())
    os.write(terminal, b"second ")
    time.sleep(0.2)
    os.kill(job, signal.SIGINT)  # Ctrl-C would empty the terminal's own buffer
    until(echoes)
    os.write(terminal, b"third\n")
    shows("read: second third")
    assert "second" not in seen.split("read:")[0]
    os.close(terminal)
    os.waitpid(child, 0)


def test_without_a_terminal_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with unechoed_keys():
        pass
