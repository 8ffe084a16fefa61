"""The command line with a generator that needs no model."""

from __future__ import annotations

import io
import sys

import fakes
import pytest
from fakes import FakeGenerator, Input, Run

from sparity_edge.cli.main import main


@pytest.fixture
def generator() -> FakeGenerator:
    return FakeGenerator()


@pytest.fixture
def run(
    generator: FakeGenerator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """run(*words, stdin="") -> (exit code, stdout, stderr), with the fake generator."""
    monkeypatch.setitem(sys.modules, "sparity_edge.generation.generator", fakes.module(generator))

    def command(*words: str, stdin: str | bytes = "") -> tuple[int, str, str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", Input(io.BytesIO(data), encoding="utf-8"))
        try:
            code = main(list(words))
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return code, *capsys.readouterr()

    return command
