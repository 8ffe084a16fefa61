"""The command line itself: help, faults, exit codes, and imports that stay light."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import fakes
import pytest
from fakes import FakeGenerator, Run

import sparity_edge
from sparity_edge.errors import SourceError
from sparity_edge.generation.settings import BY_NAME


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["chat", "-p", ""], "The prompt is empty"),
        (["chat"], "The prompt is empty"),
        (["chat", "-p", "x", "--temperature", "-1"], "temperature=-1.0 is out of range"),
        (["chat", "-p", "x", "--top-p", "nan"], "top_p=nan is out of range"),
        (["chat", "-p", "x", "--stop", ""], "stop has an empty string"),
        (["perplexity", "--text", "/no/such"], "No such file or directory"),
        (["verify", "/no/such"], "such"),
        (["convert", "/no/such", "/tmp/x"], "such"),
        (["convert", ""], "sparity-edge: '': there is no such file"),
        (["convert", "x" * 5000], f"'{'x' * 77}...': there is no such file"),
    ],
)
def test_faults_are_one_sentence_and_code_1(run: Run, words: list[str], sentence: str) -> None:
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert err.startswith("sparity-edge: ")
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["nothing"],
        ["chat", "--nothing"],
        ["chat", "--temp", "1"],
        ["chat", "--top-k", "many"],
        ["chat", "--logit-bias", "5"],
        ["chat", "--dtype", "int3"],
        ["chat", "a", "b"],
        ["perplexity", "m"],
        ["convert"],
        ["calibrate", "m", "--methods", ","],
    ],
)
def test_usage_faults_are_one_sentence_and_code_2(run: Run, words: list[str]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("sparity-edge: ")
    assert err.count("\n") == 1
    assert "--help`" in err


def test_faults_of_the_system_say_what_to_do(run: Run, tmp_path: Path) -> None:
    for path, remedy in ((tmp_path / "none", "check the spelling"), (tmp_path, "name a file")):
        if os.name == "nt" and path == tmp_path:
            continue  # Windows says that it may not be read
        code, out, err = run("perplexity", "x", "--text", str(path))
        assert (code, out) == (1, "")
        assert err.startswith(f"sparity-edge: {path}: ")
        assert err.endswith(f"; {remedy}.\n")
    assert run("convert", "x", "")[2] == (
        "sparity-edge: OUT is empty; name a folder, or leave it out.\n"
    )


def test_errors_of_loading_and_bugs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(error: Exception) -> None:
        monkeypatch.setitem(
            sys.modules,
            "sparity_edge.generation.generator",
            fakes.module(FakeGenerator(), error),  # type: ignore[arg-type]
        )

    refuse(SourceError("There is no\nmodel \x1b[2Jhere."))
    assert run("chat", "-p", "x") == (1, "", "sparity-edge: There is no model [2Jhere.\n")
    refuse(MemoryError())
    assert "not enough memory" in run("chat", "-p", "x")[2]
    refuse(PermissionError(13, "Permission denied", "/x"))
    assert (
        run("chat", "-p", "x")[2] == "sparity-edge: /x: Permission denied; check its permissions.\n"
    )
    refuse(ValueError("a bug"))
    code, _, err = run("chat", "-p", "x")
    assert code == 1
    assert err.startswith("sparity-edge: Internal error (ValueError: a bug)")
    assert "Traceback" not in err
    assert "Traceback" in run("chat", "-p", "x", "-v", "-v")[2]


def test_help_names_every_option(run: Run) -> None:
    text = run("chat", "--help")[1]
    assert all(option.flag in text for option in BY_NAME.values())
    assert "(default: 0.7)" in text
    for command in ("generate", "info", "perplexity", "convert", "verify", "cache"):
        assert run(command, "--help")[0] == 0
    assert run("--version")[1] == f"sparity-edge {sparity_edge.__version__}\n"


@pytest.mark.parametrize("code", ["import sparity_edge", "from sparity_edge.cli.main import main"])
def test_light_imports(code: str) -> None:
    heavy = "numpy numba jinja2 tokenizers rich prompt_toolkit huggingface_hub gguf platformdirs"
    check = f"{code}; import sys; print([m for m in {heavy.split()} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_help_is_quick() -> None:
    times = []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "sparity_edge", "chat", "--help"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        times.append(time.monotonic() - started)
    assert min(times) < 0.3


def test_public_names() -> None:
    assert sparity_edge.__all__ == sorted(sparity_edge.__all__)
    for name in sparity_edge.__all__:
        assert getattr(sparity_edge, name) is not None
        assert name in dir(sparity_edge)
    with pytest.raises(AttributeError, match="nothing"):
        sparity_edge.nothing  # noqa: B018
