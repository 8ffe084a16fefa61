"""Prices of passes over several tokens: measured by `bench`, kept, found again, and damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sparity_edge import Generator
from sparity_edge.cli.main import main
from sparity_edge.measure import figures
from sparity_edge.measure.cases import Case, Configuration, Task
from sparity_edge.measure.decoding import Timing
from sparity_edge.measure.prices_kept import KeptPrices
from sparity_edge.system.folders import prices_root


def test_prices_are_taken_within_rounds() -> None:
    one, four, other = (
        Case(Configuration("int8", threads), Task(0, 0, 70, read=read))
        for threads, read in ((2, 1), (2, 4), (1, 4))
    )
    rounds: list[figures.Round] = [
        {one: Timing(0.1, (), 1.0), four: Timing(0.15, (), 1.0), other: Timing(0.7, (), 1.0)},
        {one: Timing(0.2, (), 1.0), four: Timing(0.34, (), 1.0), other: Timing(0.7, (), 1.0)},
    ]
    assert figures.price(four, rounds) == pytest.approx(1.6)
    assert figures.price(other, rounds) is None, "its single token was not measured"
    assert figures.price_list(one, [one, four, other], rounds) == {4: {70: 1.6}}


def test_what_bench_measures_is_what_a_model_begins_with(
    checkpoint: Callable[[str], Path],
    small_pool: None,  # noqa: ARG001
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(
        "sparity_edge.cli.commands.bench.in_fresh_process", lambda *_: {"peak": 123_000_000}
    )
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path))  # prices that no other test has kept
    path = checkpoint("llama_gqa")
    words = ["-p", "0", "-n", "0", "-s", "1,2,4", "-d", "0,40", "-r", "1", "-t", "1", "--json"]
    assert main(["bench", str(path), *words]) == 0
    rows = {row["test"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == [f"pass{n}{at}" for at in ("", " @ d40") for n in (1, 2, 4)]
    assert rows["pass1"]["price"] == 1
    assert rows["pass4"]["n_read"] == 4
    assert rows["pass4"]["ttft_ms"] is None
    with Generator.load(path, threads=1) as generator:
        prices = generator.loaded.pace.prices
        assert {size: list(each) for size, each in prices.kept.items()} == {
            size: [0, 40] for size in (2, 4)
        }
        assert prices.of(4, 40) == pytest.approx(rows["pass4 @ d40"]["price"], abs=0.001)
        with generator.twin() as other:
            assert other.loaded.pace.prices.kept == prices.kept
        with generator.twin(threads=2) as other:
            assert KeptPrices(other.loaded).find() == {}, "threads are part of what they hold for"
        book = KeptPrices(generator.loaded)
        (file,) = prices_root().iterdir()
        for damage in ("", "[1]", '{"4": 5}', '{"4": {"0": -1}}', '{"4": {"0": NaN}}', "[" * 9999):
            file.write_text(damage)
            assert book.find() == {}
