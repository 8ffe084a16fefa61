"""The command `bench`: its options, its rows in every output format, and how it ends."""

from __future__ import annotations

import csv
import io
import itertools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from long_work import beside_long_work

from converters.pack import convert
from converters.pack_options import PackOptions
from converters.store import open_any
from sparity_edge.cli.main import build_parser, main
from sparity_edge.measure import sides
from sparity_edge.measure.decoding import Timing, time_sequence
from sparity_edge.measure.report import written

Checkpoint = Callable[[str], Path]
Run = Callable[..., tuple[int, str, str]]
CASE = "llama_gqa"
SHORT = ("-p", "8", "-n", "4", "-r", "2")

pytestmark = pytest.mark.usefixtures("small_pool")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """run(*words) -> (exit code, stdout, stderr) of `sparity-edge bench`."""

    def command(*words: object) -> tuple[int, str, str]:
        try:
            code = main(["bench", *map(str, words)])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def _no_memory_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that measures memory is a test of its own."""
    monkeypatch.setattr(
        "sparity_edge.cli.commands.bench.in_fresh_process", lambda *_: {"peak": 123_000_000}
    )


def arguments_of(*words: str) -> Any:
    return build_parser().parse_args(["bench", *words])


def test_lists_are_read_and_what_is_named_twice_counts_once() -> None:
    found = arguments_of("m", "-p", "512,64,512", "-n", " 0 , 8 ", "-t", "1,2", "-pg", "64,8")
    assert (found.n_prompt, found.n_gen, found.threads) == ([512, 64], [0, 8], [1, 2])
    assert found.pairs == [(64, 8)]
    found = arguments_of("--dtype", "int8,int4", "--sparsity", "0,.5", "--plan", "a,b", "--json")
    assert (found.dtype, found.sparsity, found.plan) == (["int8", "int4"], [0, 0.5], ["a", "b"])
    assert found.output == "json"
    found = arguments_of()
    assert (found.n_prompt, found.n_gen, found.depth, found.repetitions) == ([512], [128], [0], 5)
    assert found.output == "md"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("-p x", "'x' is not a whole number"),
        ("-p -5", "-p"),
        ("-p 1,,2", "'' is not a whole number"),
        ("-n ٣", "'٣' is not a whole number"),
        ("-r 0", "give 1 or more"),
        ("-t 0", "give 1 or more"),
        ("-b 0", "give 1 or more"),
        ("-pg 5", "'5' is not P,N"),
        ("-o xml", "invalid choice: 'xml'"),
        ("--dtype int3", "'int3' is none of f32, bf16, int8, int4"),
        ("--sparsity much", "'much' is not a number"),
    ],
)
def test_words_that_make_no_sense(run: Run, words: str, sentence: str) -> None:
    code, out, err = run(*words.split())
    assert (code, out) == (2, "")
    assert sentence in err
    assert beside_long_work(err).count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--sparsity 2", "sparsity=2.0 is not a number from 0 to 0.9"),
        ("--sparsity nan", "is not a number from 0 to 0.9"),
        ("--sparsity 0.1 --level 0.5", "give one of them"),
        ("--plan chess", "say how far"),
        ("-p 0 -n 0", "Nothing is left to measure"),
        ("-b 1,9", "No more than 8 sequences"),
        ("-s 17", "No more than 16 guesses"),
        ("-t 2000", "threads=2000"),
        ("-d 250 -p 8 -n 16", "tg16 @ d250 takes 272 positions and the model's context holds 256"),
        ("--sparsity 0.3 -p 8", "carries no sparsity plan"),
        ("--dtype bf16", "int8"),
    ],
)
def test_what_cannot_be_measured(
    run: Run, words: str, sentence: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    packed = convert(open_any(str(checkpoint(CASE))), tmp_path / "packed", PackOptions("int8"))
    code, out, err = run(packed, *words.split())
    assert (code, out) == (1, "")
    assert sentence in err
    assert beside_long_work(err).count("\n") == 1


def test_no_memory(run: Run, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    class Little:
        available = 1 << 20

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    code, out, err = run(checkpoint(CASE), *SHORT)
    assert (code, out) == (1, "")
    assert "of memory are free" in err


@pytest.mark.usefixtures("_no_memory_process")
def test_a_run_in_all_formats(run: Run, checkpoint: Checkpoint) -> None:
    words = (*SHORT, "-t", "1,2", "--depth", "0,16", "-b", "1,2", "-pg", "8,4")
    code, out, err = run(checkpoint(CASE), *words, "-o", "json")
    assert (code, beside_long_work(err)) == (0, "")
    rows = json.loads(out)
    assert len(rows) == 2 * 2 * 4
    assert [row["test"] for row in rows[:4]] == ["pp8", "tg4", "2 x tg4", "pp8+tg4"]
    for row in rows:
        _check(row)
    assert {row["n_threads"] for row in rows} == {1, 2}
    assert [row["ratio"] for row in rows[:8]] == [1] * 8
    _check_formats(rows)


def _check(row: dict[str, Any]) -> None:
    decoded, prompts = row["n_gen"] * row["n_together"], row["n_prompt"]
    assert row["rounds"] == len(row["samples_ts"]) == 2
    assert row["avg_ts"] == pytest.approx(statistics.fmean(row["samples_ts"]), rel=1e-5)
    assert len(row["samples_tpot_ms"]) == 2 * row["n_gen"]
    assert (row["ttft_ms"] is None) == (prompts == 0)
    assert (row["tpot_ms"] is None) == (decoded == 0) == ("of_streaming" not in row)
    if decoded:
        assert row["tpot_p99_ms"] >= row["tpot_ms"] > 0
        assert row["of_streaming"] > 0
    assert row["active_weight_fraction"] == 1
    assert row["plan"] is row["plan_kl"] is None
    assert row["peak_memory_bytes"] == 123_000_000
    for key in ("version", "cpu_info", "cpu_features", "packages", "python", "test_time"):
        assert row[key], key
    assert "numpy" in row["packages"]
    assert row["compile_seconds"] >= 0


def _check_formats(rows: list[dict[str, Any]]) -> None:
    assert [json.loads(line) for line in written(rows, "jsonl").splitlines()] == rows
    assert json.loads(written(rows, "json")) == rows
    read = list(csv.DictReader(io.StringIO(written(rows, "csv"))))
    assert len(read) == len(rows)
    for row, cells in zip(rows, read):
        assert float(cells["avg_ts"]) == row["avg_ts"]
        assert cells["test"] == row["test"]
        assert cells["cpu_features"].split() == row["cpu_features"]
        assert f"numpy={row['packages']['numpy']}" in cells["packages"].split()
        assert not any(key.startswith("samples_") for key in cells)
        assert float(cells["tpot_ms"] or 0) == (row["tpot_ms"] or 0)
    above, _, table = written(rows, "md").partition("\n\n")
    assert f"sparity-edge {rows[0]['version']}" in above
    assert "dtype int8" in above
    assert "sparsity dense" in above
    lines = table.splitlines()
    assert len(lines) == 2 + len(rows)
    assert len({len(line) for line in lines}) == 1
    head = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert head[:3] == ["threads", "test", "t/s"]
    assert not {"weights active", "KL", "dtype"} & set(head)


@pytest.mark.usefixtures("_no_memory_process")
def test_plans_have_their_quality_beside_them(run: Run, planned: Path) -> None:
    words = (*SHORT, "--sparsity", "0,0.2,0.45", "-b", "2", "-d", "0,20")
    code, out, err = run(planned, *words, "-o", "jsonl")
    assert (code, beside_long_work(err)) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 3 * 2 * 2
    decoded = {(row["sparsity"], row["n_depth"]): row for row in rows if row["n_gen"]}
    for depth in (0, 20):
        dense, some, more = (decoded[share, depth] for share in (0, 0.2, 0.45))
        assert (dense["plan"], dense["plan_kl"]) == (None, None)
        assert some["plan"] == "by-hand"
        fractions = [each["active_weight_fraction"] for each in (dense, some, more)]
        assert fractions[0] > fractions[1] > fractions[2] > 0
        assert some["plan_kl"] == pytest.approx(0.01)  # half way to what was measured at 0.4
        assert more["plan_kl"] is None  # beyond it
        assert some["bytes_per_token"] < dense["bytes_per_token"]
    assert all(row["plan_kl"] is None for row in rows if not row["n_gen"])
    table = written(rows, "md").partition("\n\n")[2]
    assert "by-hand 0.20 (level" in table
    assert "~0.0100" in table


@pytest.mark.usefixtures("_no_memory_process")
def test_ctrl_c_keeps_whole_rounds(
    run: Run, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()
    limit = 5  # of two cases: the warm round, one round, and half of the next

    def interrupted(*words: Any) -> Timing:
        if next(calls) == limit:
            raise KeyboardInterrupt
        return time_sequence(*words)

    monkeypatch.setattr(sides, "time_sequence", interrupted)
    code, out, err = run(checkpoint(CASE), *SHORT, "--json")
    assert (code, err) == (130, "")
    rows = json.loads(out)
    assert [(row["test"], row["rounds"]) for row in rows] == [("pp8", 1), ("tg4", 1)]
    assert rows[0]["peak_memory_bytes"] is None
    limit = 3
    calls = itertools.count()
    assert run(checkpoint(CASE), *SHORT) == (130, "", "")


def test_number_formats_are_packs_of_their_own(
    run: Run, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def peak(_: Any, path: Path, *words: Any) -> dict[str, int]:
        asked.append((path, *words))
        return {"peak": len(asked)}

    monkeypatch.setattr("sparity_edge.cli.commands.bench.in_fresh_process", peak)
    code, out, _ = run(
        checkpoint(CASE), *SHORT, "--dtype", "int8,f32", "-t", "1,2", "--cache-dtype", "int8",
        "-d", "0,16", "--json",
    )  # fmt: skip
    assert code == 0
    rows = json.loads(out)
    assert [row["dtype"] for row in rows] == ["int8"] * 8 + ["f32"] * 8
    assert [row["peak_memory_bytes"] for row in rows] == [1] * 8 + [2] * 8
    assert {row["cache_dtype"] for row in rows} == {"int8"}
    dense = {"plan": None, "sparsity": None, "level": None}
    assert [words[1:] for words in asked] == [(2, 8, 16, "int8", dense)] * 2
    assert len({words[0] for words in asked}) == 2


def test_ctrl_c_while_memory_is_measured(
    run: Run, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparity_edge.cli.commands.bench.in_fresh_process", interrupted)
    code, out, _ = run(checkpoint(CASE), *SHORT, "--json")
    assert code == 130
    assert [row["rounds"] for row in json.loads(out)] == [2, 2]


@pytest.mark.usefixtures("_no_memory_process")
def test_more_threads_than_cores_are_told_of(
    run: Run, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparity_edge.cli.commands.bench.default_threads", lambda: 2)
    code, out, err = run(checkpoint(CASE), "-p", "8", "-n", "0", "-r", "1", "-t", "3")
    assert code == 0
    assert "3 threads on 2 cores" in err
    assert "pp8" in out
    assert "GB/s" not in out
