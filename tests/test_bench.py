"""The benchmarks: their arithmetic, and that every script starts. No figure is expected of them."""

from __future__ import annotations

import importlib
import json
import struct
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
SCRIPTS = (
    "costs",
    "forced",
    "kernels",
    "latency",
    "memory",
    "pareto",
    "peers",
    "quality",
    "quality_dense",
    "roofline",
    "spread",
    "thinned",
)


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """bench(name) imports a module of the folder, which is no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name: str) -> None:
    run = subprocess.run(
        [sys.executable, str(BENCH / f"{name}.py"), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "--out" in run.stdout


def test_every_script_is_tried() -> None:
    scripts = {
        path.stem
        for path in BENCH.glob("*.py")
        if "argparse" in (text := path.read_text(encoding="utf-8")) or "= parser(" in text
    }
    assert scripts - {"common"} == set(SCRIPTS)


def test_summary(bench: Any) -> None:
    common = bench("common")
    figure = common.summary([4.0, 1.0, 2.0, 3.0, 5.0])
    assert (figure["median"], figure["q1"], figure["q3"]) == (3, 2, 4)
    assert figure["spread"] == pytest.approx(2 / 3)
    assert figure["values"] == [4, 1, 2, 3, 5]
    assert common.with_spread(figure, 1) == "3.0 (2.0-4.0)"
    alone = common.summary([7.0])
    assert (alone["median"], alone["q1"], alone["q3"], alone["spread"]) == (7, 7, 7, 0)
    assert common.summary([0.0, 0.0])["spread"] == 0


def test_a_ratio_is_taken_within_a_round(bench: Any) -> None:
    common = bench("common")
    # The machine gets three times slower: the ratio of medians is 1, that of each round is 2.
    assert common.ratios([2.0, 6.0, 18.0], [1.0, 3.0, 9.0]) == [2, 2, 2]
    with pytest.raises(ValueError, match="3 rounds"):
        common.ratios([1.0, 2.0, 3.0], [1.0])


def test_cases_take_turns(bench: Any) -> None:
    common, calls = bench("common"), []

    def case(name: str) -> Any:
        def run() -> float:
            calls.append(name)
            return float(len(calls))

        return run

    told: list[str] = []
    samples = common.alternate({name: case(name) for name in "abc"}, 2, say=told.append)
    assert "".join(calls) == "cba" + "abc" + "cba"
    assert samples == {"a": [4, 9], "b": [5, 8], "c": [6, 7]}
    assert told[-1] == "round 2/2"
    calls.clear()
    assert common.alternate({"a": case("a")}, 1, warm=False) == {"a": [1]}


def test_a_table_is_markdown(bench: Any) -> None:
    text = bench("common").table(["a", "b"], [[1, "x"], [2.5, "y"]])
    assert text.splitlines() == ["| a | b |", "| --- | --- |", "| 1 | x |", "| 2.5 | y |"]


def test_reports_are_json_and_appear_whole(bench: Any, tmp_path: Path) -> None:
    common, path = bench("common"), tmp_path / "new" / "report.json"
    report = {"models": {"m": {"values": [1.5, -2e-7], "names": ["a", "b"], "none": []}}}
    common.save(path, report)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == report
    assert "[1.5, -2e-07]" in text
    assert common.models_so_far(path) == report["models"]
    assert common.models_so_far(tmp_path / "none.json") == {}
    with pytest.raises(ValueError, match="nan"):
        common.save(path, {"bad": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == report
    assert list(path.parent.iterdir()) == [path]


def test_the_machine_is_described(bench: Any) -> None:
    about = bench("common").machine(2)
    assert about["threads"] == 2
    assert about["cpu"]
    assert {"numpy", "numba", "llvmlite"} <= set(about["packages"])
    json.dumps(about)


def test_shapes_of_the_models(bench: Any) -> None:
    shapes = bench("synthetic").SHAPES
    assert shapes["Llama-3-8B"].linears["k, v"] == (1024, 4096)
    assert shapes["SmolLM2-135M"].linears["down"] == (576, 1536)
    names = bench("kernels").shapes(["Llama-3-8B", "Mistral-7B"])
    assert names[14336, 4096] == "Llama-3-8B gate, up; Mistral-7B gate, up"
    assert len(names) == 6


@pytest.mark.parametrize("number_format", ["Q8_0", "Q4_0"])
def test_a_synthetic_model_runs(
    bench: Any, tmp_path: Path, number_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from sparity_edge import Generator

    synthetic, models = bench("synthetic"), bench("models")
    monkeypatch.setattr(synthetic, "DRAWN", 1 << 12)
    shape = synthetic.Shape(64, 128, 2, 2, 1, 512, head_dim=32)
    path = tmp_path / "tiny.gguf"
    synthetic.write_gguf(path, shape, number_format)
    assert models.gguf_of(str(path)) == path
    with Generator.load(path, threads=1) as generator:
        model = generator._model
        models.fill_cache(model, 100, 10)
        assert len(model.cache) == 100
        assert np.isfinite(model.read([1, 2])).all()
        head = 512 * model.decoder.lm_head.layout.row_bytes
        blocks = models.bytes_of_a_token(model, 0) - head
        weights = generator.info()["weight_bytes"] - 2 * head
        assert weights - blocks == 4 * 64 * 5  # the norms
        more = models.bytes_of_a_token(model, 3) - models.bytes_of_a_token(model, 0)
        assert more == 3 * model.cache.bytes_per_token


@pytest.mark.parametrize("threads", [1, 2])
def test_the_ceilings_are_positive(bench: Any, threads: int) -> None:
    memory = bench("ceiling").Memory(threads, 1 << 20)
    assert memory.streaming()() > 0
    for row_bytes in (256, 16384):
        for density in (0.01, 0.5, 1.0):
            assert memory.gathering(row_bytes, density)() > 0
    memory.close()


def test_reading_kernels_read_what_they_are_told(bench: Any) -> None:
    import numpy as np

    ceiling = bench("ceiling")
    memory = ceiling.Memory(2, 1 << 20)
    pool = memory.pool[: 1 << 20].view(np.float32)
    pool[:] = np.random.default_rng(0).integers(0, 4, pool.size)
    places = np.array([0, 448, 2048, 7168, 0, 0], dtype=np.int64)
    sums = ceiling._Reading(
        2, ceiling.read_rows, 2, memory.pool, 0, 0, places, 4, 2, 448, 2
    )  # fmt: skip
    memory._team.run(sums)
    assert [float(sums.out[16 * chunk]) for chunk in range(2)] == [
        sum(pool[place // 4 : place // 4 + 112].sum() for place in pair)
        for pair in (places[:2], places[2:4])
    ]
    memory.close()


def test_a_llama_state_is_repeated(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", types.ModuleType("llama_cpp"))
    repeated_state = bench("llama_peer").repeated_state

    def state(length: int) -> bytes:
        cells = [struct.pack("<iIi", position, 1, 0) for position in range(length)]
        parts = [struct.pack("<IIII", 77, 0, 1, length), *cells, struct.pack("<II", 0, 1)]
        for letters in (b"kKqQ", b"vV"):
            rows = [bytes([letters[i % len(letters)]]) * 3 for i in range(length)]
            parts += [struct.pack("<iQ", 1, 3), *rows]
        return b"".join(parts)

    assert repeated_state(state(4), 12) == state(12)
    with pytest.raises(AssertionError, match="bytes are left"):
        repeated_state(state(4) + b"x", 12)
