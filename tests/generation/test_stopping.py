"""Stop strings: every cut into pieces gives what a look at the whole text gives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparity_edge.generation.stop_strings import StopStrings


def plainly(text: str, stop: list[str]) -> tuple[str, bool]:
    """The definition: cut in front of the match that is complete first, the longest of those."""
    for end in range(len(text) + 1):
        starts = [end - len(s) for s in stop if text[:end].endswith(s)]
        if starts:
            return text[: min(starts)], True
    return text, False


@given(
    st.lists(st.text("ab\n", max_size=4), max_size=12),
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4),
)
@settings(deadline=None)
def test_any_split_equals_the_definition(pieces: list[str], stop: list[str]) -> None:
    machine = StopStrings(stop)
    shown, stopped = "", False
    for piece in pieces:
        emitted, stopped = machine.push(piece)
        shown += emitted
    whole = "".join(pieces)
    expected, expected_stop = plainly(whole, stop)
    assert stopped == expected_stop
    assert expected.startswith(shown)
    assert shown + machine.flush() == expected
    if not stopped:  # what is held back is no more than the beginning of a stop string
        held = whole[len(shown) :]
        assert not held or any(s.startswith(held) for s in stop)


def with_hidden(text: str, marks: list[bool], stop: list[str]) -> tuple[str, bool]:
    """The definition where some characters are hidden: a match may count them in or leave them out.

    Of the matches that are complete first, the one that begins first.
    """
    for end in range(1, len(text) + 1):
        starts = [end - len(s) for s in stop if text[:end].endswith(s)]
        at = [i for i in range(end) if marks[i]]
        if marks[end - 1]:
            visible = "".join(text[i] for i in at)
            starts += [at[-len(s)] for s in stop if visible.endswith(s)]
        if starts:
            return "".join(text[i] for i in range(min(starts)) if marks[i]), True
    return "".join(character for character, shown in zip(text, marks) if shown), False


@given(
    st.lists(st.tuples(st.text("ab", max_size=2), st.sampled_from(["", "", "<b>"])), max_size=9),
    st.lists(st.sampled_from(["a", "ab", "bb", "<b>", "b>", "a<b>a", "<b><b>"]), max_size=3),
)
@settings(deadline=None)
def test_hidden_text_is_found_and_never_shown(
    pieces: list[tuple[str, str]], stop: list[str]
) -> None:
    machine = StopStrings(stop)
    shown, stopped = "", False
    for piece in pieces:
        emitted, stopped = machine.push(*piece)
        shown += emitted
    text = "".join(piece + hidden for piece, hidden in pieces)
    marks = [mark for t, h in pieces for mark in [True] * len(t) + [False] * len(h)]
    assert (shown + machine.flush(), stopped) == with_hidden(text, marks, stop)


@pytest.mark.parametrize(
    ("pieces", "stop", "shown"),
    [
        (["Hello <e", "nd", "> more"], ["<end>"], ["Hello ", "", ""]),
        (["Hello <e", "njoy"], ["<end>"], ["Hello ", "<enjoy"]),
        (["aab"], ["ab"], ["a"]),
        (["text"], [], ["text"]),
    ],
)
def test_examples(pieces: list[str], stop: list[str], shown: list[str]) -> None:
    machine = StopStrings(stop)
    assert [machine.push(piece)[0] for piece in pieces] == shown


def test_after_the_end_everything_is_swallowed() -> None:
    machine = StopStrings(["x"])
    assert machine.push("axb") == ("a", True)
    assert machine.push("more") == ("", True)
    assert machine.flush() == ""
