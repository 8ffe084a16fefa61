"""`info`: what a loaded Generator says about itself, found without reading a weight."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from plan_families import family

from converters.pack_options import PackOptions
from converters.store import prepare
from sparity_edge.cli.main import main
from sparity_edge.generation.generator import Generator
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.packed import folder as packed_folder
from sparity_edge.plans.plan_file import add_plan


@pytest.fixture
def source(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A packed folder with a plan."""
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    folder = prepare(str(checkpoint("llama_gqa")), PackOptions(layout="mixed"))
    add_plan(open_folder(folder), family(open_packed(folder), "mixed"))
    return folder


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"threads": 1, "max_context": 17, "cache_dtype": "int8"},
        {"plan": "by-hand", "sparsity": 0.3},
        {"plan": "by-hand", "level": 0.4, "cache_dtype": "f32"},
    ],
)
def test_no_weight_is_read_and_all_is_as_if_they_were(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    asked: dict[str, float | str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Generator.load(str(source), force=True, **asked) as generator:  # type: ignore[arg-type]
        expected = {**generator.info(), "active_weight_fraction_by_level": generator.plans()}
    del expected["load_seconds"]
    for name in ("read_weights", "load_shard"):
        monkeypatch.setattr(packed_folder, name, None)
    words = [word for key, value in asked.items()
             for word in (f"--{key.replace('_', '-')}", str(value))]  # fmt: skip
    assert main(["info", str(source), *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == expected
