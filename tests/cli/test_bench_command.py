"""The command `bench`: what is measured, in which order, what becomes of it, and how it ends."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_families import family

from converters.pack import PackOptions, convert
from converters.store import open_any
from sparity_edge import Generator
from sparity_edge.cli.main import build_parser, main
from sparity_edge.errors import OptionError, SparityError
from sparity_edge.measure import context, figures, fresh, rounds, sides
from sparity_edge.measure.cases import Case, Configuration, Task, cases_of, settings_of, tasks_of
from sparity_edge.measure.decoding import Timing, time_answer
from sparity_edge.measure.report import written
from sparity_edge.packed.folder import open_packed
from sparity_edge.plans.plan_file import add_plan
from sparity_edge.plans.setting import DENSE, Setting

Checkpoint = Callable[[str], Path]
Run = Callable[..., tuple[int, str, str]]
CASE = "llama_gqa"
SHORT = ("-p", "8", "-n", "4", "-r", "2")


@pytest.fixture(autouse=True)
def _small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "POOL_BYTES", 1 << 20)
    monkeypatch.setattr(sides, "STREAM_SECONDS", 0.0)


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


@pytest.fixture(scope="module")
def planned(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed folder that carries the plan by-hand, with evidence."""
    out = tmp_path_factory.mktemp("packs") / "planned"
    path = convert(open_any(str(checkpoint(CASE))), out, PackOptions("int8", layout="mixed"))
    plan = family(open_packed(path), "mixed")
    notes = {"evidence": [{"sparsity": 0.4, "active": 0.6, "kl": 0.02}]}
    object.__setattr__(plan, "notes", notes)
    add_plan(path, plan)
    return path


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
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--sparsity 2", "sparsity=2.0 is not a number from 0 to 0.9"),
        ("--sparsity nan", "is not a number from 0 to 0.9"),
        ("--sparsity 0.1 --level 0.5", "give one of them"),
        ("--plan chess", "say how far"),
        ("-p 0 -n 0", "Nothing is left to measure"),
        ("-b 1,9", "No more than 8 answers"),
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
    assert err.count("\n") == 1


def test_no_memory(run: Run, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    class Little:
        available = 1 << 20

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Little)
    code, out, err = run(checkpoint(CASE), *SHORT)
    assert (code, out) == (1, "")
    assert "of memory are free" in err


def test_tasks_are_named_as_in_llama_bench() -> None:
    tasks = tasks_of([512, 0], [128, 0], [(64, 32)], [0, 2048], [1, 4])
    assert [task.name for task in tasks] == [
        "pp512", "tg128", "4 x tg128", "pp64+tg32",
        "pp512 @ d2048", "tg128 @ d2048", "4 x tg128 @ d2048", "pp64+tg32 @ d2048",
    ]  # fmt: skip
    assert [task.tokens for task in tasks[:4]] == [512, 128, 512, 96]
    assert tasks_of([0], [5], [], [0], [1]) == [Task(0, 5)]
    with pytest.raises(OptionError, match="Nothing is left"):
        tasks_of([0], [0], [], [0], [1])


def test_configurations_multiply_and_dense_is_one() -> None:
    settings = settings_of(["chess", "teal"], [0.0, 0.3], None)
    assert settings == [DENSE, Setting("chess", 0.3), Setting("teal", 0.3)]
    assert settings_of([None], None, None) == [DENSE]
    assert settings_of([None], None, [0.5]) == [Setting(None, None, 0.5)]
    cases = list(cases_of(["int8", "int4"], [1, 2], settings, [Task(8, 0), Task(0, 4)]))
    assert len(cases) == len(set(cases)) == 2 * 2 * 3 * 2
    assert cases[1] == Case(Configuration("int8", 1, DENSE), Task(0, 4))


def test_turns_give_whole_rounds_every_other_one_in_reverse() -> None:
    calls: list[str] = []

    def case(name: str) -> Callable[[], int]:
        def run() -> int:
            if len(calls) == 7:
                raise KeyboardInterrupt
            calls.append(name)
            return len(calls)

        return run

    turns = rounds.turns({"a": case("a"), "b": case("b")}, 5)
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


def test_figures_of_hand_made_rounds() -> None:
    task = Task(0, 4)
    slow, quick = (Case(Configuration(None, threads), task) for threads in (1, 2))
    found: list[dict[Any, Any]] = [
        {slow: Timing(9.0, (0.2,) * 4, 1.0), quick: Timing(9.0, (0.1,) * 4, 0.5), 1: 10, 2: 20},
        {slow: Timing(9.0, (0.4,) * 4, 1.0), quick: Timing(9.0, (0.1, 0.1, 0.1, 0.5), 0.7),
         1: 5, 2: 40},
    ]  # fmt: skip
    row = figures.speeds(quick, slow, found)
    assert row["samples_ts"] == [10, 5]
    assert row["avg_ts"] == 7.5
    assert row["stddev_ts"] == pytest.approx(statistics.stdev([10, 5]), rel=1e-5)
    assert row["ratio"] == 2  # 10 / 5 and 5 / 2.5
    assert row["ttft_ms"] is None
    assert row["tpot_ms"] == 100
    assert row["tpot_p99_ms"] == pytest.approx(np.percentile([100] * 7 + [500], 99))
    assert row["active_weight_fraction"] == 0.6
    assert len(row["samples_tpot_ms"]) == 8
    share = figures.ceiling(quick, found, 10**9)  # 1/20 and 1/40 s at best; 0.1 and 0.2 s
    assert (share["of_streaming"], share["streaming_gb_s"]) == (0.3125, 30)
    prompt = Case(Configuration(None, 1), Task(64, 2))
    row = figures.speeds(prompt, prompt, [{prompt: Timing(0.5, (0.25, 0.25), 1.0)}])
    assert (row["avg_ts"], row["ttft_ms"], row["stddev_ts"]) == (66, 500, 0)


@pytest.mark.usefixtures("_no_memory_process")
def test_a_run_in_all_formats(run: Run, checkpoint: Checkpoint) -> None:
    words = (*SHORT, "-t", "1,2", "--depth", "0,16", "-b", "1,2", "-pg", "8,4")
    code, out, err = run(checkpoint(CASE), *words, "-o", "json")
    assert (code, err) == (0, "")
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
    assert (code, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 3 * 2 * 2
    decoded = {(row["sparsity"], row["n_depth"]): row for row in rows if row["n_gen"]}
    for depth in (0, 20):
        dense, some, more = (decoded[share, depth] for share in (0, 0.2, 0.45))
        assert (dense["plan"], dense["active_weight_fraction"], dense["plan_kl"]) == (None, 1, None)
        assert some["plan"] == "by-hand"
        assert 1 > some["active_weight_fraction"] > more["active_weight_fraction"] > 0
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
        return time_answer(*words)

    monkeypatch.setattr(sides, "time_answer", interrupted)
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


def test_a_fresh_process_measures_memory(planned: Path) -> None:
    dial = {"plan": None, "sparsity": 0.2, "level": None}
    found = fresh.in_fresh_process(fresh.peak_memory, planned, 1, 8, 16, "int8", dial)
    assert found["peak"] >= found["rss"] > 10_000_000
    assert found["weights"] > 0
    with Generator.load(planned, cache_dtype="int8") as generator:
        each = generator.info()["cache_bytes_per_token"]
    assert found["cache"] == each * (16 + 8 + fresh.LATER)


def test_errors_of_a_fresh_process_arrive() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        fresh.in_fresh_process(int, "x")
    with pytest.raises(SparityError, match="ended early"):
        fresh.in_fresh_process(os._exit, 3)


def test_a_twin_shares_the_weights_and_nothing_else(planned: Path) -> None:
    with Generator.load(planned, threads=2, sparsity=0.4) as one, one.twin(threads=1) as other:
        assert other.threads == 1
        assert other.loaded.model.packed is one.loaded.model.packed
        assert other.sparsity == 0
        other.sparsity = 0.4
        ids = list(range(5, 25))
        logits = [each.loaded.model.read([6], thin=True).copy() for each in (one, other)]
        assert np.array_equal(*logits)
        one.loaded.model.read(ids)
        assert len(other.loaded.model.cache) == 1
    with Generator.load(planned) as one:
        assert one.twin().threads == one.threads
        with pytest.raises(OptionError, match="threads"):
            one.twin(threads=0)


@pytest.mark.parametrize("like_text", [True, False])
def test_contexts(planned: Path, like_text: bool) -> None:
    with Generator.load(planned, threads=1) as generator:
        ids = context.text_ids(generator, 70)
        assert len(ids) == 70
        assert context.text_ids(generator, 100_000)[:70] == ids  # the text begins anew
        context.lay_context(generator, ids[:50], 10, like_text=like_text)
        assert generator.loaded.model.cache.ids == ids[:50]
        assert generator.loaded.model.cache.capacity >= 60
        keys = np.asarray(generator.loaded.model.cache.keys[0], dtype=np.float32)[:, :50]
        assert np.isfinite(keys).all()
        assert (np.abs(keys).max(axis=(0, 2)) > 0).all()
        found = time_answer(generator, ids, later=3)
        assert len(found.later) == 3
        assert generator.loaded.model.cache.ids[:70] == ids


def test_several_answers_are_timed_by_the_first(planned: Path) -> None:
    with Generator.load(planned, threads=1, sparsity=0.4) as generator:
        found = time_answer(generator, [5, 6, 7], later=6, settle=4, together=3)
        assert len(found.later) == 6
        alone = time_answer(generator, [5, 6, 7], later=6, settle=4)
        assert 1 >= found.active > alone.active > 0  # more channels are needed by any of three
