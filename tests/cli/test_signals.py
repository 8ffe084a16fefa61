"""Signals, pipes and closed streams: how the command line ends, and with which exit code."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import fakes
import pytest
from fakes import Run

from sparity_edge.system.interrupts import interrupts

FAKES = str(Path(fakes.__file__))


def test_ctrl_c_in_an_import_that_calls_it_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)

    def interrupted(_: str) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("importing the C-extensions failed") from None

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert run("info") == (130, "", "")
    assert signal.getsignal(signal.SIGINT) is before

    def broken(_: str) -> None:
        raise ImportError("no such library")

    monkeypatch.setattr(importlib, "import_module", broken)
    assert run("info")[0] == 1


def test_an_interrupt_that_is_ignored_stays_ignored(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ignored(_: str) -> types.SimpleNamespace:
        signal.raise_signal(signal.SIGINT)
        return types.SimpleNamespace(info=lambda _: None)

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        monkeypatch.setattr(importlib, "import_module", ignored)
        assert run("info") == (0, "", "")
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither SIGINT for children nor EPIPE")
def test_signals_and_pipes_in_a_process_of_its_own() -> None:
    words = [sys.executable, FAKES, "chat", "--prompt", "x"]
    endless = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert endless.stdout is not None
    assert endless.stderr is not None
    assert endless.stdout.read(10) == b"word word "
    endless.send_signal(signal.SIGINT)
    endless.stdout.read()
    assert endless.wait(10) == 130
    assert endless.stderr.read() == b""
    endless.stdout.close()
    endless.stderr.close()
    quitter = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert quitter.stdout is not None
    assert quitter.stderr is not None
    quitter.stdout.read(10)
    quitter.stdout.close()
    assert quitter.wait(10) == 141
    assert quitter.stderr.read() == b""
    quitter.stderr.close()


def test_output_that_the_terminal_cannot_show_is_replaced() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, FAKES, "chat", "--max-tokens", "1", "-p", "日本", "-v"]
    run = subprocess.run(words, env=environment, capture_output=True, check=True, timeout=30)
    assert run.stdout == b"word \n"
    assert b"?" in run.stderr  # the dots between the figures


@pytest.mark.skipif(os.name == "nt", reason="descriptors are not closed for children there")
@pytest.mark.parametrize(
    ("closed", "expected"),
    [
        (0, (1, b"", b"sparity-edge: The prompt is empty; give it with --prompt or on standard")),
        (1, (0, b"", b"")),
        (2, (0, b"word word \n", b"")),
    ],
)
def test_closed_streams(closed: int, expected: tuple[int, bytes, bytes]) -> None:
    words = ["sh", "-c", f'"$@" {closed}<&-', "sh"]
    words += [sys.executable, FAKES, "chat", "--max-tokens", "2"]
    run = subprocess.run(words, input=b"x", capture_output=True, check=False, timeout=30)
    assert (run.returncode, run.stdout, run.stderr[: len(expected[2])]) == expected


ENDED = """
import os, signal, sys
from sparity_edge.cli import main
from sparity_edge.system.atomic import temporary_folder
from sparity_edge.system.leftovers import partial_name
from pathlib import Path

class Command:
    def info(self, arguments):
        with temporary_folder(Path(partial_name("out"))):
            try:
                os.kill(os.getpid(), getattr(signal, sys.argv[1]))
            finally:
                os.kill(os.getpid(), signal.SIGTERM)  # a second one does not hinder tidying up

main.importlib.import_module = lambda _: Command()
sys.exit(main.main(["info"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_command_that_is_ended_tidies_up(name: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", ENDED, name]
    done = subprocess.run(words, capture_output=True, cwd=tmp_path, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (128 + getattr(signal, name), b"")
    assert list(tmp_path.iterdir()) == []


class Dropping:
    """Is told to end where no exception can leave."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def test_an_end_that_a_finalizer_drops_comes_again() -> None:
    with interrupts(), pytest.raises(SystemExit) as ended:  # noqa: PT012 - a moment later
        dropping = Dropping()
        del dropping
        for _ in range(500):
            time.sleep(0.01)
    assert ended.value.code == 143
