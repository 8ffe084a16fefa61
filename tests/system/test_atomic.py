"""Names of partial files, and which of them are stale."""

from __future__ import annotations

import os
import time
from pathlib import Path

from sparity_edge.system.atomic import is_stale, partial_name


def test_what_counts_as_stale(tmp_path: Path) -> None:
    alive = tmp_path / partial_name("x")
    host = alive.name.split("-")[1]
    dead = tmp_path / f".x.partial-{host}-{2**22 + 1}-00000000"
    foreign = tmp_path / ".x.partial-00000000-1-00000000"
    other = tmp_path / ".x.partial-notes"
    for path in (alive, dead, foreign, other):
        path.mkdir()
    assert [is_stale(path) for path in (alive, dead, foreign, other)] == [
        False,
        True,
        False,
        False,
    ]
    old = time.time() - 48 * 3600
    os.utime(foreign, (old, old))
    assert is_stale(foreign)
