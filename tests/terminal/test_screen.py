"""Progress bars: when they appear, and where they do not."""

from __future__ import annotations

import io
import re
import time

import pytest

from sparity_edge.terminal.screen import BAR_DELAY, PIPE_DELAY, Bars, Screen

LONG = "A sentence that is much longer than forty columns, and goes on and on " * 2
LONG = LONG.strip()


def test_bars_wait_half_a_second() -> None:
    written = io.StringIO()
    with Bars(Screen(written, written), terminal=False) as bars:
        for done in range(5):
            bars("quick", done, 4)
    assert written.getvalue() == ""
    with Bars(Screen(written, written), terminal=False) as bars:
        bars("slow\x1b work", 0, 4)
        deadline = time.monotonic() + 10
        while not written.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)  # nothing is reported meanwhile
        assert written.getvalue() == "slow work ...\n"
        bars("slow\x1b work", 4, 4)


def test_short_work_is_not_told_of_where_nobody_may_be_looking() -> None:
    written = io.StringIO()
    with Bars(Screen(written, written), terminal=False, delay=PIPE_DELAY) as bars:
        bars.notify("Something is made.")
        bars("quick", 0, 4)
    assert written.getvalue() == ""
    with Bars(Screen(written, written), terminal=False, delay=BAR_DELAY + 0.1) as bars:
        bars.notify("Something is made.")
        bars("slow", 0, 4)
        time.sleep(BAR_DELAY + 0.5)
        bars("later", 0, 4)
    assert written.getvalue() == "Something is made.\nslow ...\nlater ...\n"
    with Bars(Screen(written, written), terminal=False) as bars:
        bars.notify("At once.")
        assert written.getvalue().endswith("At once.\n")


class Terminal(io.StringIO):
    """A terminal of COLUMNS."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("term", ["dumb", "xterm-256color"])
def test_answers_and_notes_keep_the_width_of_the_terminal(
    term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    screen = Screen(terminal, terminal)
    for word in LONG.split():
        screen.text(f" {word}")
    screen.note(LONG)
    screen.text("next answer")
    screen.end_line()
    lines = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue()).splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert " ".join(" ".join(lines).split()) == f"{LONG} {LONG} next answer"
    assert ("\x1b" in terminal.getvalue()) == (term != "dumb")


def test_a_pipe_gets_answers_and_notes_as_they_are() -> None:
    pipe = io.StringIO()
    screen = Screen(pipe, pipe)
    screen.text(LONG)
    screen.note(LONG)
    assert pipe.getvalue() == f"{LONG}\n{LONG}\n"
