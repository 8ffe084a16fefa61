"""Text in pieces, wrapped at words: no word is cut that fits a line, and no character is lost."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from sparity_edge.terminal.word_wrap import WordWrap

SENTENCE = "The quick brown fox jumps over the lazy dog and is never seen again."


def wrapped(pieces: list[str], width: int) -> str:
    wrap = WordWrap()
    return "".join(wrap.push(piece, width) for piece in pieces) + wrap.flush(width)


@pytest.mark.parametrize("width", [7, 12, 20, 40, 80])
def test_lines_are_those_of_textwrap_however_the_text_arrives(width: int) -> None:
    expected = textwrap.fill(SENTENCE, width)
    for size in (1, 3, 100):
        pieces = [SENTENCE[at : at + size] for at in range(0, len(SENTENCE), size)]
        assert wrapped(pieces, width) == expected


@given(st.lists(st.text("ab \n日é", max_size=12)), st.integers(2, 30))
def test_no_character_but_blanks_is_lost_and_no_line_is_too_wide(
    pieces: list[str], width: int
) -> None:
    shown = wrapped(pieces, width)
    assert "".join(shown.split()) == "".join("".join(pieces).split())
    assert all(cell_len(line.rstrip()) <= width for line in shown.split("\n"))
    assert shown == wrapped(["".join(pieces)], width)


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("    indented code", 20, "    indented code"),
        ("a\n\n  b", 20, "a\n\n  b"),
        ("abcdefghij", 4, "abcd\nefgh\nij"),
        ("日本語日本語", 4, "日本\n語日\n本語"),
        ("ends in blanks  ", 20, "ends in blanks  "),
        ("", 20, ""),
    ],
)
def test_blanks_long_words_and_wide_characters(text: str, width: int, expected: str) -> None:
    assert wrapped([text], width) == expected


def test_a_word_is_shown_when_it_is_complete() -> None:
    wrap = WordWrap()
    assert wrap.push("one tw", 80) == "one"
    assert wrap.push("o", 80) == ""
    assert wrap.push("\n", 80) == " two\n"
