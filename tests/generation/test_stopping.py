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
