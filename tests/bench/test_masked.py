"""bench/limits: masked references in NumPy, against plans on kernels and against the formulas."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packing import pack_folder

from converters.allocate import evidence
from converters.calibrate import fit_methods
from converters.calibration.observe import dense_model
from converters.methods import METHODS
from converters.methods.family import Method, assemble
from sparity_edge.model.opening import open_packed
from sparity_edge.packed.folder import PackedModel
from sparity_edge.progress import silent

WINDOWS = np.random.default_rng(3).integers(5, 280, (2, 96))
RULES = {"nm-4": "2:4", "nm-16": "8:16", "teal-top": "half of each token"}


@pytest.fixture(scope="module")
def packed(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> PackedModel:
    out = tmp_path_factory.mktemp("masked") / "model"
    return open_packed(pack_folder(checkpoint("llama_gqa"), out, "f32", "input"))


def test_masking_equals_plans_on_kernels(bench: Any, packed: PackedModel) -> None:
    rules = bench("limits.n_of_m").rules()
    wanted = {name: rules[name] for name in RULES.values()}
    found = bench("limits.masked").divergences(packed, WINDOWS, WINDOWS, wanted)
    methods = [METHODS[name] for name in RULES]
    fits = fit_methods(packed, WINDOWS, [m for m in methods if isinstance(m, Method)], threads=1)
    specs = packed.layouts
    with dense_model(packed, WINDOWS.shape[1], 1, silent) as model:
        for method in methods:
            assert isinstance(method, Method)
            plan = assemble(method, fits[method.name], specs, "", {}).at_level(0.5)
            (measured,) = evidence.measure(model, [plan], WINDOWS)
            assert found[RULES[method.name]] == pytest.approx(measured.kl, rel=1e-2)


def test_rules_of_n_of_m(bench: Any) -> None:
    module, random = bench("limits.n_of_m"), np.random.default_rng(0)
    x, weight = random.normal(1, 1, (60, 32)), random.normal(0, 1, (24, 32))
    weights = {"q_proj": weight}
    dense = x @ weight.T
    few = module.pruned(x, 8)
    assert ((few != 0).reshape(60, 4, 8).sum(axis=2) == 4).all()
    for row, kept in zip(x.reshape(-1, 8), few.reshape(-1, 8), strict=True):
        assert np.abs(row[kept == 0]).max() <= np.abs(kept[kept != 0]).min()

    def error(name: str) -> float:
        rule = module.rules()[name]
        return float(
            np.square(rule.apply(x, weight, rule.learn("q_proj", x, weights)) - dense).sum()
        )

    plain = error("8:16")
    assert error("8:16, LS") < plain, "the best line is no worse than none"
    assert error("8:16, D-PTS") < plain, "a common shift of one helps inputs whose mean is one"
    assert error("8:16, S-PTS") < plain
    assert error("8:16, L-PTS") < plain
    scaled = module.varied(x, np.eye(32), None, 16)
    np.testing.assert_allclose(scaled.var(axis=1), x.var(axis=1), rtol=1e-6)
    rule = module.rules()["2:4 of weights"]
    assert ((rule.learn("q_proj", x, weights) != 0).reshape(24, 8, 4).sum(axis=2) == 2).all()


def test_compensated_rules(bench: Any) -> None:
    module, random = bench("limits.compensated"), np.random.default_rng(0)
    x = random.normal(0, 1, (400, 32)).astype(np.float32)
    for shape in ((24, 32), (48, 32)):
        weight = random.normal(0, 1, shape).astype(np.float32)
        parts = module.split("q_proj", x, {"q_proj": weight}, 0.5)
        rank = parts.second.shape[0]
        u, s, v = np.linalg.svd(weight, full_matrices=False)
        best = (u[:, :rank] * s[:rank]) @ v[:rank]
        np.testing.assert_allclose(parts.first @ parts.second, best, atol=1e-4)
        kept = np.abs(x) * np.linalg.norm(weight, axis=0) > parts.tau
        assert kept.mean() == pytest.approx(0.25, abs=0.01)
        assert kept.mean() * weight.size + rank * sum(shape) == pytest.approx(
            weight.size / 2, abs=sum(shape) / 2 + 0.01 * weight.size
        )
        expected = (x * kept) @ weight.T + (x * ~kept) @ best.T
        np.testing.assert_allclose(module.by_rank(x, weight, parts), expected, atol=1e-3)
        norm = random.uniform(0.5, 2, 32).astype(np.float32)
        weights = {"k_proj": weight, "q_proj": weight[::-1], "attn_in": norm}
        for name in ("k_proj", "q_proj"):
            parts = module.turned(name, x, weights, rotated=True)
            coordinates = x @ parts.into
            np.testing.assert_allclose(coordinates @ parts.weight.T, x @ weights[name].T, atol=1e-3)
            basis = norm[:, None] * parts.into
            np.testing.assert_allclose(basis.T @ basis, np.eye(32), atol=1e-5)
            gram = parts.weight.T @ parts.weight
            np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-3)
        assert parts.norms is None, "q is chosen by size alone"


def test_scripts_keep_a_table(
    bench: Any, packed: PackedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = tmp_path / "data", tmp_path / "out.json"
    text = "The river went round the stone, and took a little of it away. " * 60
    for path, content in (
        ("wikitext2/wiki.valid.raw", text),
        ("calib_c4/c4_pf_1480.jsonl", json.dumps({"text": text}) + "\n"),
    ):
        (data / path).parent.mkdir(parents=True)
        (data / path).write_text(content, encoding="utf-8")
    module, runs = bench("limits.compensated"), bench("limits.runs")
    words = ["--pack", packed.path, "--data", data, "--windows", 2, "--window", 32, "--out", out]
    monkeypatch.setattr(sys, "argv", ["script", *map(str, words), "--rules", "WINA"])
    show = bench("pages.limits").masked_table
    assert runs.main("Rules.", "compensated", module.RULES, module.reads) == 0
    (part,) = json.loads(out.read_text())["models"].values()
    assert part["windows"] == 2
    (row,) = part["rows"]
    assert row["kl"] > 0
    assert 0.5 < row["reads"] < 1
    assert "WINA" in show({"compensated": {"models": {"model": part}}}, "compensated")
