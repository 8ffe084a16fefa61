"""Rounds, ratios, ceilings: the arithmetic of measuring. No figure is expected of a machine."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from sparity_edge.kernels.program.recorder import Recorder
from sparity_edge.measure import ceiling, rounds
from sparity_edge.measure.machine import machine


def test_summary() -> None:
    figure = rounds.summary([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (figure["median"], figure["q1"], figure["q3"]) == (3, 2, 4)
    assert figure["spread"] == pytest.approx(2 / 3)
    assert figure["values"] == [4, 1, 2, 3, 5]
    assert rounds.with_spread(figure, 1) == "3.0 (2.0-4.0)"
    alone = rounds.summary([7.0])
    assert (alone["median"], alone["q1"], alone["q3"], alone["spread"]) == (7, 7, 7, 0)
    assert rounds.summary([0.0, 0.0])["spread"] == 0


def test_a_ratio_is_taken_within_a_round() -> None:
    # The machine gets three times slower: the ratio of medians is 1, that of each round is 2.
    assert rounds.ratios([2.0, 6.0, 18.0], [1.0, 3.0, 9.0]) == [2, 2, 2]
    with pytest.raises(ValueError, match="3 rounds"):
        rounds.ratios([1.0, 2.0, 3.0], [1.0])


def test_cases_take_turns() -> None:
    calls: list[str] = []

    def case(name: str) -> Callable[[], float]:
        def run() -> float:
            calls.append(name)
            return float(len(calls))

        return run

    told: list[str] = []
    samples = rounds.alternate({name: case(name) for name in "abc"}, 2, say=told.append)
    assert "".join(calls) == "cba" + "abc" + "cba"
    assert samples == {"a": [4, 9], "b": [5, 8], "c": [6, 7]}
    assert told[-1] == "round 2/2"
    calls.clear()
    assert rounds.alternate({"a": case("a")}, 1, warm=False) == {"a": [1]}


def test_a_table_is_markdown() -> None:
    text = rounds.table(["a", "b"], [[1, "x"], [2.5, "y"]])
    assert text.splitlines() == ["| a | b |", "| --- | --- |", "| 1 | x |", "| 2.5 | y |"]


def test_the_machine_is_described() -> None:
    about = machine(2)
    assert about["threads"] == 2
    assert about["cpu"]
    assert {"numpy", "numba", "llvmlite"} <= set(about["packages"])
    json.dumps(about)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_ceilings_are_positive(threads: int) -> None:
    memory = ceiling.Memory(threads, 1 << 20)
    assert memory.streaming()() > 0
    for row_bytes in (256, 16384):
        for density in (0.01, 0.5, 1.0):
            assert memory.gathering(row_bytes, density)() > 0
    memory.close()


def test_reading_kernels_read_what_they_are_told() -> None:
    memory = ceiling.Memory(2, 1 << 20)
    pool = memory.pool[: 1 << 20].view(np.float32)
    pool[:] = np.random.default_rng(0).integers(0, 4, pool.size)
    places = np.array([0, 448, 2048, 7168, 0, 0], dtype=np.int64)
    recorder, sums = Recorder(2), np.zeros((2, 16), dtype=np.float32)
    recorder.record(
        ceiling.read_rows, 2, data=memory.pool, rows=places, count=4, step=2, row_bytes=448,
        distance=2, out=sums,
    )  # fmt: skip
    memory._team.run(recorder)
    assert [float(sums[chunk, 0]) for chunk in range(2)] == [
        sum(pool[place // 4 : place // 4 + 112].sum() for place in pair)
        for pair in (places[:2], places[2:4])
    ]
    memory.close()
