"""`sparity-edge serve`: what is wrong is told before a model is loaded, and Ctrl-C ends it."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import FakeGenerator, Run

pytest.importorskip("uvicorn", reason="the extra [server] is not installed")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--queue", "0"), "--queue=0 is too small"),
        (("--cache-mb", "-1"), "--cache-mb=-1 is too small"),
        (("--port", "99999"), "Port 99999 of 127.0.0.1 cannot be had"),
        (("--host", "256.1.1.1"), "of 256.1.1.1 cannot be had"),
        (("--api-key", ""), "is empty"),
        (("--api-key", "a\nb"), "no header carries"),
        (("--api-key", "\udcff"), "no header carries"),
    ],
)
def test_what_cannot_be_served(
    run: Run, generator: FakeGenerator, words: tuple[str, ...], sentence: str
) -> None:
    code, _, err = run("serve", *words)
    assert code == 1
    assert sentence in err
    assert not generator.loaded_with


def test_a_taken_port(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = run("serve", "--port", str(taken.getsockname()[1]))
    assert code == 1
    assert "name another with --port" in err


def test_without_its_packages(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*sys.modules]:
        if name.startswith("sparity_edge.server"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, err = run("serve")
    assert code == 1
    assert "sparity-edge[server]" in err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process alone")
def test_it_serves_until_ctrl_c(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    words = ["serve", str(checkpoint("llama_gqa")), "--port", "0", "--name", "tiny", "--open"]
    browser, shown = tmp_path / "browser.py", tmp_path / "shown"
    browser.write_text(f"import sys; open({str(shown)!r}, 'w').write(sys.argv[1])")
    process = subprocess.Popen(
        [sys.executable, "-m", "sparity_edge", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "BROWSER": shlex.join([sys.executable, str(browser), "%s"])},
    )
    assert process.stderr is not None
    with process:
        try:
            line = next(line for line in process.stderr if "/v1; Ctrl-C" in line)
            address = line.split(" at ")[1].split("/v1")[0]
            with urllib.request.urlopen(f"{address}/v1/models", timeout=30) as answer:
                assert b'"tiny"' in answer.read()
            while not (shown.exists() and shown.read_text()):
                time.sleep(0.01)
            assert shown.read_text() == f"{address}/"
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130)
        assert process.stderr.read() == ""
