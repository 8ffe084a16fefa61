"""The benchmarks: their arithmetic, and that every script starts. No figure is expected of them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sparity_edge.kernels.active_list import full_list
from sparity_edge.packed.bundle import BundleLayout
from sparity_edge.packed.layout import Layout

BENCH = Path(__file__).resolve().parents[2] / "bench"
SCRIPTS = (
    "costs",
    "endings",
    "forced",
    "kernels",
    "ladder",
    "latency",
    "memory",
    "pareto",
    "parts",
    "peers",
    "plans",
    "quality",
    "quality_dense",
    "report",
    "robustness",
    "roofline",
    "spread",
    "versions",
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(
    name: str, bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        bench(name).main()
    assert ended.value.code in (None, 0)
    assert "--out" in capsys.readouterr().out


@pytest.mark.parametrize("script", ["quality.py", "limits/times.py"])
def test_a_script_starts_by_itself(script: str) -> None:
    """With nothing but its own folder to import from."""
    words = [sys.executable, str(BENCH / script), "--help"]
    run = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    assert "--out" in run.stdout


def test_every_script_is_tried() -> None:
    scripts = {
        path.stem
        for path in BENCH.glob("*.py")
        if "argparse" in (text := path.read_text(encoding="utf-8")) or "= parser(" in text
    }
    assert scripts == set(SCRIPTS)


def test_reports_are_json_and_appear_whole(bench: Any, tmp_path: Path) -> None:
    common, path = bench("shared.common"), tmp_path / "new" / "report.json"
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


def test_shapes_of_the_models(bench: Any) -> None:
    shapes = bench("shared.synthetic").SHAPES
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
    from sparity_edge.measure import context, decoding

    synthetic, models = bench("shared.synthetic"), bench("shared.models")
    monkeypatch.setattr(synthetic, "DRAWN", 1 << 12)
    shape = synthetic.Shape(64, 128, 2, 2, 1, 512, head_dim=32)
    path = tmp_path / "tiny.gguf"
    synthetic.write_gguf(path, shape, number_format)
    assert models.gguf_of(str(path)) == path
    with Generator.load(path, threads=1) as generator:
        model = generator.loaded.model
        context.fill_cache(model, 100, 10)
        assert len(model.kv_cache) == 100
        assert np.isfinite(model.read([1, 2])).all()
        head = 512 * model.decoder.lm_head.layout.row_bytes
        blocks = decoding.bytes_of_a_token(model, 0) - head
        weights = generator.info()["weight_bytes"] - 2 * head
        assert weights - blocks == 4 * 64 * 5  # the norms
        more = decoding.bytes_of_a_token(model, 3) - decoding.bytes_of_a_token(model, 0)
        assert more == 3 * model.kv_cache.bytes_per_token


def test_a_llama_state_is_repeated(bench: Any) -> None:
    repeated_state = bench("processes.llama_state").repeated_state

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


def test_every_kind_of_the_table_is_measured(bench: Any) -> None:
    kernels = bench("kernels")
    assert set(kernels.KINDS) == set(kernels.MEASURES)


@pytest.mark.parametrize("dtype", ["f32", "int4", "int8", "int4k", "int6k"])
def test_all_channels_active_read_all_but_idle_lines(bench: Any, dtype: str) -> None:
    cases = bench("shared.cases")
    group = {"f32": 0, "int4": 64, "int8": 32}.get(dtype, 0)
    kinds = {"int4k": {"group": 32, "minimum": True}, "int6k": {"group": 16}}
    form = kinds.get(dtype, {"group": group, "minimum": dtype == "int4"})
    layout = Layout(dtype, "input", (96, 512), **form)
    idle = layout.row_bytes - layout.number_bytes
    assert cases.Bench.active_bytes(layout, full_list(512)) == layout.nbytes - 512 * idle
    up = Layout(dtype, "output", (512, 256), **form)
    bundle = BundleLayout(up, Layout(dtype, "input", (256, 512), **form))
    idle = bundle.row_bytes - up.row_bytes - bundle.down.number_bytes
    assert cases.Bench.active_bytes(bundle, full_list(512)) == bundle.nbytes - 512 * idle
