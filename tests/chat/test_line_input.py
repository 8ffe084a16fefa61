"""Typed text: several lines, quotes, history, and terminals that can do little."""

from __future__ import annotations

import os
from pathlib import Path

import fakes
import pytest

from sparity_edge.chat.line_input import (
    EditedInput,
    PlainInput,
    confirm,
    is_open,
    open_line_input,
    unquote,
)


def test_dumb_terminals_get_plain_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_line_input(None, ()), PlainInput)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(EditedInput, "__init__", lambda *_: 1 / 0)
    assert isinstance(open_line_input(tmp_path / "history", ()), PlainInput)


def test_edited_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from prompt_toolkit.application import create_app_session
    from prompt_toolkit.input import create_pipe_input
    from prompt_toolkit.output import DummyOutput

    monkeypatch.setenv("TERM", "xterm")
    history = tmp_path / "deep" / "history"
    typed = {
        "hello\r": "hello",
        "a\\\rb\r": "a\nb",
        "a\x1b\rb\r": "a\nb",
        '"""a\rb"""\r': "a\nb",
        "\x1b[200~one\ntwo\\\n  three\x1b[201~\r": "one\ntwo\\\n  three",
        "\x1b[A\r": "one\ntwo\\\n  three",
        "日本 🙂\r": "日本 🙂",
    }
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        edited = EditedInput(history, ["/help", "/clear"])
        for keys, message in typed.items():
            pipe.send_text(keys)
            assert edited.read() == message
        for keys, error in (("\x03", KeyboardInterrupt), ("\x04", EOFError)):
            pipe.send_text(keys)
            with pytest.raises(error):
                edited.read()
    assert "+hello" in history.read_text(encoding="utf-8")
    if os.name != "nt":
        assert history.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["plain"], "plain"),
        (["a\\", "b\\", "c"], "a\nb\nc"),
        (['"""first', "second\\", 'third"""'], "first\nsecond\\\nthird"),
        (['"""', "  indented", '"""'], "  indented"),
        (['"""one line"""'], "one line"),
        (['"""', '"""'], ""),
        (['say """ aloud'], 'say """ aloud'),
        (["  kept blanks"], "  kept blanks"),
        (["\udcff"], "?"),
    ],
)
def test_typing_several_lines(
    typed: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(typed)
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert PlainInput().read() == message
    assert next(lines, None) is None


def test_open_quotes() -> None:
    assert is_open('"""')
    assert is_open('"""a\nb')
    assert is_open('"""""')
    assert not is_open('""" """')
    assert not is_open('a """')
    assert unquote('"""a') == '"""a'


@pytest.mark.parametrize(
    ("typed", "agreed"),
    [("y", True), (" YES ", True), ("", False), ("no", False), (EOFError, False),
     (KeyboardInterrupt, False)],
)  # fmt: skip
def test_only_a_yes_is_a_yes(
    typed: str | type[BaseException],
    agreed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("builtins.input", fakes.ScriptedInput(typed).read)
    assert confirm("Now?") == agreed
    assert capsys.readouterr().out.startswith("Now? [y/N] ")
