"""Ctrl-C while the command starts and runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from sparity_edge.system.interrupts import interrupts

# Says when the entry has run its first lines and begins to import the rest.
COMMAND = """
import os, sys

class Tells:
    def find_spec(self, name, path=None, target=None):
        if name == "sparity_edge.cli.main":
            os.write(1, b"up")

sys.meta_path.insert(0, Tells())
import sparity_edge.__main__ as entry
sys.argv = ["sparity-edge", "info", "--cpu"]
sys.exit(entry.main())
"""


class Dropping:
    """Hears Ctrl-C where no exception can leave."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_what_a_finalizer_drops_comes_again() -> None:
    before = sys.unraisablehook
    with interrupts() as heard:
        dropping = Dropping()
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - a moment later
            del dropping
            for _ in range(500):
                time.sleep(0.01)
        assert heard == [signal.SIGINT, signal.SIGINT]
    assert sys.unraisablehook is before


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for children")
@pytest.mark.parametrize("delay", [0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.25, 0.4])
def test_ctrl_c_during_the_start_is_silent(delay: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(2) == b"up"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        error = process.stderr.read()
        code = process.wait(20)
    assert error == b""
    assert code in (-signal.SIGINT, 130, 0)
