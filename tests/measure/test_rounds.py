"""Interleaved rounds: their order, their count, and the statistics of what they gave."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparity_edge.measure import rounds


def test_turns_give_whole_rounds_every_other_one_in_reverse() -> None:
    calls: list[str] = []

    def case(name: str) -> Callable[[], int]:
        def run() -> int:
            if len(calls) == 7:
                raise KeyboardInterrupt
            calls.append(name)
            return len(calls)

        return run

    turns = rounds.interleaved({"a": case("a"), "b": case("b")}, 5)
    assert [next(turns), next(turns)] == [{"a": 3, "b": 4}, {"b": 5, "a": 6}]
    with pytest.raises(KeyboardInterrupt):
        next(turns)
    assert "".join(calls) == "ba" + "ab" + "ba" + "a"


def test_calls_are_counted_before_they_are_made() -> None:
    told: list[tuple[str, int, int]] = []
    cases = {"a": lambda: len(told), "b": lambda: len(told)}
    counted = rounds.counted(cases, 4, "label", lambda *state: told.append(state))
    assert [counted[name]() for name in "abab"] == [1, 2, 3, 4]
    assert told == [("label", done, 4) for done in range(4)]


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=300))
def test_statistics(values: list[float]) -> None:
    assert rounds.percentile(values, 99) == pytest.approx(np.percentile(values, 99))
    expected = np.std(values, ddof=1) if len(values) > 1 else 0
    assert rounds.deviation(values) == pytest.approx(expected, abs=1e-6)
