"""bench/pareto.py and bench/quality.py from end to end on a tiny model with a plan made by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sparity_edge.plans.setting import Setting

BENCH = Path(__file__).resolve().parents[2] / "bench"
TEXT = "The river went round the stone, year after year, and took a little of it away. " * 12
QUALITY = ("kl_mean", "kl_p99", "perplexity", "active_weight_fraction")
WINDOWS = ["--window", "32", "--windows", "2", "--threads", "2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "wikitext2").mkdir()
    (folder / "wikitext2/wiki.test.raw").write_text(TEXT, encoding="utf-8")
    (folder / "piqa").mkdir()
    line = json.dumps({"goal": "Go", "sol1": "left", "sol2": "right"}) + "\n"
    (folder / "piqa/valid.jsonl").write_text(line * 3, encoding="utf-8")
    (folder / "piqa/valid-labels.lst").write_text("0\n1\n1\n", encoding="utf-8")
    return folder


def run(module: Any, monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, words), *WINDOWS])
    assert module.main() == 0


def test_pareto(
    bench: Any,
    folder: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pareto, out = bench("pareto"), tmp_path / "pareto.json"
    words = ["--data", data, "--model", folder, "--out", out, "--rounds", 2, "--tokens", 8]
    run(pareto, monkeypatch, *words, "by-hand@0.6")
    rows = json.loads(out.read_text(encoding="utf-8"))["models"]["mixed"]["rows"]
    assert set(rows) == {"dense", "by-hand@0.6"}
    assert rows["dense"]["kl_mean"] == 0
    assert rows["dense"]["ratio"]["values"] == [1, 1]
    sparse = rows["by-hand@0.6"]
    assert sparse["kl_mean"] > 0
    assert sparse["decoding"]["active_fraction"] < 1
    assert sparse["tokens_s"]["median"] > 0
    # Another position is added; what was measured stays as it is.
    run(pareto, monkeypatch, *words, "by-hand@0.6", "by-hand:0.2")
    more = json.loads(out.read_text(encoding="utf-8"))["models"]["mixed"]["rows"]
    assert {name: more[name] for name in rows} == rows
    assert set(more) - set(rows) == {"by-hand:0.2"}
    assert "| mixed | by-hand:0.2 |" in capsys.readouterr().out
    pytest.importorskip("joblib", reason="the extra [parallel] is not installed")
    words[words.index(out)] = other = tmp_path / "spread.json"
    run(pareto, monkeypatch, *words, "by-hand@0.6", "--workers", 2)
    spread = json.loads(other.read_text(encoding="utf-8"))["models"]["mixed"]["rows"]
    for name, row in rows.items():
        assert {key: spread[name][key] for key in QUALITY} == {key: row[key] for key in QUALITY}


def test_the_figure(bench: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="figures come with the extra bench")
    speed = {"median": 10.0}

    def row(plan: str | None, kl: float, active: float) -> dict[str, Any]:
        facts = {"plan": plan, "sparsity": plan and 1 - active, "level": None}
        return {**facts, "kl_mean": kl, "active_weight_fraction": active, "tokens_s": speed,
                "ratio": {"median": 2 - active}}  # fmt: skip

    part = {
        "dtypes": ["int8"],
        "machine": {"cpu": "a CPU (family 1)", "threads": 2, "date": "2020-01-02T03:04"},
        "protocol": {"text": "t", "windows": 2, "window": 32},
        "rows": {"dense": row(None, 0, 1), "a": row("p", 0.1, 0.7), "b": row("p", 0.3, 0.5)},
    }
    path = bench("pages.pareto_figure").draw(
        {"m f32": part, "m int8": part}, tmp_path / "figure.png"
    )
    assert path.read_bytes().startswith(b"\x89PNG")


def test_quality(
    bench: Any,
    folder: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "quality.json"
    words = ["--data", data, "--model", folder, "--out", out, "--tasks", "piqa", "--limit", 2]
    run(bench("quality"), monkeypatch, "by-hand@0.6", *words)
    rows = json.loads(out.read_text(encoding="utf-8"))["models"]["mixed"]["rows"]
    assert set(rows) == {"dense", "by-hand@0.6"}
    assert rows["by-hand@0.6"]["active_weight_fraction"] < rows["dense"]["active_weight_fraction"]
    assert len(rows["dense"]["piqa"]["correct"]) == 2
    assert rows["by-hand@0.6"]["piqa"]["active_weight_fraction"] < 1
    assert "| by-hand@0.6 |" in capsys.readouterr().out
    pytest.importorskip("joblib", reason="the extra [parallel] is not installed")
    words[words.index(out)] = other = tmp_path / "spread.json"
    run(bench("quality"), monkeypatch, "by-hand@0.6", *words, "--workers", 2)
    assert json.loads(other.read_text(encoding="utf-8"))["models"]["mixed"]["rows"] == rows


def test_every_plan_is_a_curve(bench: Any, folder: Path) -> None:
    rows = bench("shared.rows")
    (found,) = rows.settings_of([folder], [], (0.2, 0.4, 0.6)).values()
    assert found == [Setting("by-hand", 0.2), Setting("by-hand", 0.4)]  # it reaches 0.5
    assert rows.by_plan([*found, Setting("other", 0.2)]) == [found, [Setting("other", 0.2)]]
    with pytest.raises(SystemExit, match="No pack carries a plan named missing"):
        rows.settings_of([folder], ["missing:0.2"], ())


def test_rows_of_another_protocol_are_not_kept(bench: Any, tmp_path: Path) -> None:
    rows, path = bench("shared.rows"), tmp_path / "report.json"
    report, part = rows.kept(path, "m", {"windows": 2}, 1)
    part["rows"]["dense"] = {"kl_mean": 0}
    path.write_text(json.dumps(report), encoding="utf-8")
    assert rows.kept(path, "m", {"windows": 2}, 1)[1]["rows"] == part["rows"]
    assert rows.kept(path, "m", {"windows": 3}, 1)[1]["rows"] == {}
    assert rows.kept(path, "other", {"windows": 2}, 1)[0]["models"]["m"]["rows"] == part["rows"]


def test_times(bench: Any, planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What quality.py has of a label is timed; a second run adds what is missing."""
    out, quality = tmp_path / "times.json", tmp_path / "quality.json"
    known = {"dense": {}, "by-hand@0.6": {}, "by-hand:0.2": {}, "elsewhere@0.5": {}}
    quality.write_text(json.dumps({"models": {"tiny": {"rows": known}}}), encoding="utf-8")
    monkeypatch.setattr(bench("shared.side"), "PROMPT", "Go on.")
    times, words = bench("limits.times"), ["--dense", planned, "--packs", planned, "--out", out]
    words += ["--label", "tiny", "--quality", quality, "--rounds", 1, "--tokens", 4, "--threads", 1]

    def rows(*more: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["script", *map(str, (*words, *more))])
        assert times.main() == 0
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return dict(found["models"]["tiny"]["rows"])

    first = rows("by-hand@0.6")
    assert first["by-hand@0.6"]["active_weight_fraction"] < 1
    assert first["by-hand@0.6"]["against_dense"]["median"] > 0
    both = rows()
    assert set(both) == {"by-hand@0.6", "by-hand:0.2"}
    assert both["by-hand@0.6"] == first["by-hand@0.6"]
    with pytest.raises(SystemExit, match="None of --packs carries the plan of elsewhere"):
        rows("elsewhere@0.5")
