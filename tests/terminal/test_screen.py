"""Progress bars: when they appear, and where they do not."""

from __future__ import annotations

import io
import time

from sparity_edge.terminal.screen import Bars, Screen


def test_bars_wait_half_a_second_and_vanish_where_nobody_looks() -> None:
    written = io.StringIO()
    with Bars(Screen(written, written), enabled=True, terminal=False) as bars:
        for done in range(5):
            bars("quick", done, 4)
    assert written.getvalue() == ""
    with Bars(Screen(written, written), enabled=True, terminal=False) as bars:
        bars("slow\x1b work", 0, 4)
        deadline = time.monotonic() + 10
        while not written.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)  # nothing is reported meanwhile
        assert written.getvalue() == "slow work ...\n"
        bars("slow\x1b work", 4, 4)
    with Bars(Screen(written, None), enabled=False, terminal=True) as bars:
        bars("unseen", 0, 4)
    assert written.getvalue() == "slow work ...\n"
