"""Pages and pictures are as fresh as the results; the ladder, its verdict, the parts of a token."""

from __future__ import annotations

import copy
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_cases import TOKENIZER_SIZE

ROOT = Path(__file__).resolve().parents[2]
# Code, checked by test_docs.py and test_layout.py.
NOT_GENERATED = {"example", "chat", "tests", "snippet", "rooms", "rooms-graph", "sizes", "bundles"}


@pytest.fixture(scope="module")
def results(bench: Any) -> dict[str, Any]:
    found: dict[str, Any] = bench("report").read_results(ROOT / "bench" / "results")
    return found


def test_pages_are_fresh(bench: Any, results: dict[str, Any]) -> None:
    report = bench("report")
    for page in report.pages():
        written = page.read_text(encoding="utf-8")
        assert report.filled(page, results) == written, f"{page.name}: bench/report.py --render"


def test_every_marker_has_a_generator(bench: Any) -> None:
    report = bench("report")
    known = {*report.all_blocks(), *NOT_GENERATED}
    for page in report.pages():
        text = page.read_text(encoding="utf-8")
        begun = re.findall(r"<!-- ([\w-]+): begin -->", text)
        assert set(begun) <= known, page.name
        assert re.findall(r"<!-- ([\w-]+): end -->", text) == begun, page.name
        assert [found["name"] for found in report.BLOCK.finditer(text)] == begun, page.name


def test_every_block_has_its_results(bench: Any, results: dict[str, Any]) -> None:
    for name, block in bench("report").all_blocks().items():
        assert set(block.needs) <= set(results), name


def test_figures_are_fresh(bench: Any, results: dict[str, Any]) -> None:
    captions = bench("pages.captions")
    files = {path.stem: path for path in (ROOT / "docs" / "figures").glob("*.svg")}
    assert set(files) == set(captions.FIGURES)
    for name, path in files.items():
        fresh = captions.checksum(name, results)
        assert captions.drawn_from(path) == fresh, f"{name}: bench/report.py --render"


def test_a_changed_figure_makes_pages_and_pictures_stale(
    bench: Any, results: dict[str, Any]
) -> None:
    captions, tables = bench("pages.captions"), bench("pages.tables")
    changed = copy.deepcopy(results)
    (model, *_) = changed["ladder"]["models"].values()
    model["rows"]["Q8_0"]["kl_mean"] *= 2
    assert captions.checksum("ladder", changed) != captions.checksum("ladder", results)
    assert captions.checksum("memory", changed) == captions.checksum("memory", results)
    assert tables.ladder_table(changed) != tables.ladder_table(results)


def test_the_same_results_give_the_same_picture(
    bench: Any, results: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="figures come with the extra bench")
    captions, figures = bench("pages.captions"), bench("pages.figures")
    assert {*figures.DRAWN, *captions.FIELD} == set(captions.FIGURES)
    one, other = tmp_path / "one.svg", tmp_path / "other.svg"
    for name in ("ladder", "field-qwen"):
        for path in (one, other):
            figures.draw(name, results, path)
        assert one.read_bytes() == other.read_bytes()
        assert captions.drawn_from(one) == captions.checksum(name, results)
    assert "<dc:date>" not in one.read_text(encoding="utf-8")


def row(side: str, kl: float, *seconds: float, file_numbers: bool = False) -> dict[str, Any]:
    return {"side": side, "kl_mean": kl, "seconds": list(seconds), "file_numbers": file_numbers}


def test_fronts_and_duels(bench: Any) -> None:
    fronts = bench("pages.fronts")
    rows = {
        "F32": row("llama.cpp", 0.0, 9.0, 9.0),
        "Q8_0": row("llama.cpp", 0.01, 4.0, 8.0),
        "Q4_0": row("llama.cpp", 0.2, 2.0, 4.0),
        "Q2_K": row("llama.cpp", 0.4, 3.0, 6.0),
        "f32": row("ours", 0.0, 8.0, 16.0),
        "int8": row("ours", 0.005, 2.0, 4.0),
        "int4": row("ours", 0.001, 1.0, 2.0, file_numbers=True),
    }
    assert fronts.front(rows, "llama.cpp") == ["F32", "Q8_0", "Q4_0"]
    assert fronts.front(rows, "ours") == ["f32", "int4"]
    found = fronts.duels(rows)
    assert {name: duel[0] for name, duel in found.items()} == {
        "F32": "f32", "Q8_0": "int4", "Q4_0": "int4", "Q2_K": "int4"
    }  # fmt: skip
    assert found["Q8_0"][1]["values"] == [4, 4]
    assert fronts.verdict(rows).endswith("ours is faster, 2.00 times at least.")
    # Without the file's own numbers int8 is as slow as Q4_0; that F32 is faster does not count.
    assert fronts.verdict(fronts.made_anew(rows)) == "Not faster at the KL of Q4_0."
    rows["Q8_0"]["kl_mean"] = -1.0  # none of ours is as good
    assert fronts.duels(rows)["Q8_0"] is None
    assert fronts.verdict(rows) == "Not faster at the KL of Q8_0."


def test_the_verdict_claims_quantised_steps_only(bench: Any, results: dict[str, Any]) -> None:
    fronts = bench("pages.fronts")
    rows = {
        "F32": row("llama.cpp", 0.0, 1.0, 1.0),  # faster than ours, and not counted
        "f32": row("ours", 0.0, 8.0, 8.0),
    }
    assert fronts.verdict(rows) == "No quantised step of llama.cpp's ladder was measured."
    rows |= {"Q8_0": row("llama.cpp", 0.01, 9.0, 9.0), "int8": row("ours", 0.005, 3.0, 3.0)}
    assert "every quantised step" in fronts.verdict(rows)
    assert fronts.verdict(rows).endswith("3.00 times at least.")
    # The sentence on the pages is true of the table below it.
    for part in results["ladder"]["models"].values():
        measured = fronts.timed_rows(part)
        for kept in (measured, fronts.made_anew(measured)):
            duels = fronts.duels(kept)
            steps = {name: duels[name] for name in duels if name not in fronts.UNQUANTISED}
            won = all(duel is not None and duel[1]["median"] > 1 for duel in steps.values())
            assert ("every quantised step" in fronts.verdict(kept)) == won


def test_comparing_reports(bench: Any, results: dict[str, Any]) -> None:
    ratios = bench("pages.ratios")
    same = ratios.compare(results, results)
    assert "+0.0%" in same
    count = len(ratios.all_ratios(results))
    assert f"{count} of {count} ratios agree" in same
    other = copy.deepcopy(results)
    (model, *_) = other["peers"]["models"].values()
    model["prefill"]["speed_ratio"]["median"] *= 1.5
    text = ratios.compare(results, other)
    assert f"{count - 1} of {count} ratios agree within 10 %" in text
    assert "prompt / llama.cpp: +50.0%.\nMemory streamed at" in text
    assert ratios.compare(results, {}) == "The two reports have no ratio in common."


class FakePeer:
    """In place of llama.cpp: predictions that depend on the kind alone."""

    def __init__(self, python: str) -> None:  # noqa: ARG002
        self.calls: list[str] = []

    def __call__(self, do: str, **words: Any) -> dict[str, Any]:
        self.calls.append(do)
        if do == "quantize":
            Path(words["out"]).write_text(words["kind"], encoding="utf-8")
        if do == "logits":
            shape = (len(words["tokens"]), TOKENIZER_SIZE)
            wide = 1.0 if words["name"] == "Q8_0" else 3.0
            logits = wide * np.random.default_rng(0).standard_normal(shape, np.float32)
            logits.tofile(words["out"])
            return {"shape": shape}
        return {"seconds": 1.0}

    def close(self) -> None:
        self.calls.append("end")


def test_the_ladder(
    bench: Any,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ladder, peer_side, side = bench("ladder"), bench("shared.ladder_peer"), bench("shared.side")
    monkeypatch.setattr(ladder, "LlamaCpp", FakePeer)
    monkeypatch.setattr(ladder, "gguf_of", lambda _: tmp_path / "model-Q4_0.gguf")
    monkeypatch.setattr(peer_side, "contents", lambda path: ({path.stem: 7}, 7))
    monkeypatch.setattr(side, "PROMPT", "A short prompt")
    text = tmp_path / "text.txt"
    text.write_text("The river went round the stone, year after year. " * 20, encoding="utf-8")
    words = ["--model", folder, "--text", text, "--kinds", "F32", "Q8_0", "Q4_0", "--dense", "f32",
             "--dial", "f32", "--no-regrouped", "--window", 32, "--windows", 2, "--rounds", 2,
             "--tokens", 4, "--threads", 2, "--out", tmp_path / "ladder.json"]  # fmt: skip

    def run(*more: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["ladder.py", *map(str, (*words, *more))])
        assert ladder.main() == 0
        report = json.loads((tmp_path / "ladder.json").read_text(encoding="utf-8"))
        part: dict[str, Any] = report["models"]["mixed"]
        return part

    part = run("--only", "quality", "by-hand@0.6")
    rows = part["rows"]
    assert list(rows) == ["f32", "f32 by-hand@0.6", "F32", "Q8_0", "Q4_0"]
    assert rows["f32"]["kl_mean"] == 0
    assert 0 < rows["f32 by-hand@0.6"]["kl_mean"] < rows["Q8_0"]["kl_mean"]
    assert rows["Q8_0"]["kl_mean"] < rows["Q4_0"]["kl_mean"]
    sparser = rows["f32 by-hand@0.6"]
    assert sparser["bytes_a_token"] < rows["f32"]["bytes_a_token"]
    assert rows["Q4_0"]["file_numbers"]
    assert not rows["Q8_0"]["file_numbers"]
    assert (tmp_path / "cache").exists() is False  # files go to the cache of the tests

    part = run("by-hand@0.6")
    assert part["rows"] == rows
    assert {len(values) for values in part["speed"]["seconds"].values()} == {2}
    assert part["speed"]["active_weight_fraction"]["f32 by-hand@0.6"] < 1
    assert part["speed"]["seconds"]["Q8_0"] == [0.25, 0.25]
    out = capsys.readouterr().out
    assert "every quantised step of llama.cpp's ladder ours is faster" in out
    # More rounds are added to those of the run before, and --again forgets them.
    more = run("by-hand@0.6", "--rounds", 4)["speed"]["seconds"]["f32"]
    assert more[:2] == part["speed"]["seconds"]["f32"]
    assert len(more) == 4
    assert len(run("by-hand@0.6", "--again", "speed")["speed"]["seconds"]["f32"]) == 2


@pytest.mark.parametrize("setting", ["dense", "by-hand@0.6"])
def test_parts_of_a_token(bench: Any, folder: Path, setting: str) -> None:
    parts = bench("parts")
    side = bench("shared.side").Side(folder, [setting], 2)
    model = side.generator.loaded.model
    programs = parts.tag_programs(model)
    dense = setting == "dense"
    side.generator.apply(side.settings[setting])
    model.read([1, 2, 3, 4, 5])
    model.read([6], sparse=True)
    program = programs[-1]
    tags = list(program.tags)
    assert len(tags) == len(program.records)
    assert set(tags) == {*parts.PARTS} - ({parts.SELECTION} if dense else set())
    assert tags[0] == parts.NORMS
    assert tags[-1] == parts.HEAD
    *_, this = (each for key, each in model._passes.items() if key.rows == 1)  # the latest
    logits = this.buffers.logits.copy()
    samples = parts.clock(model.machine.team, program, 3, lambda: None)
    assert set(samples) == {*tags, parts.REST, parts.TOKEN}
    assert {len(values) for values in samples.values()} == {3}
    known = sum(np.array(samples[tag]) for tag in {*tags, parts.REST})
    assert np.allclose(samples[parts.TOKEN], known)
    # With something to do in each part it is the token that it was.
    model.machine.team.run(parts.without(program, ()))
    assert (this.buffers.logits == logits).all()
    model.machine.team.run(parts.without(program, {parts.FFN}))
    assert (this.buffers.logits != logits).any()
    side.generator.close()


def test_who_wins_where(bench: Any) -> None:
    field = bench("pages.field")

    def rows(**kl: float) -> dict[str, Any]:
        shares = {
            "dense": 1.0,
            "teal@0.2": 0.8,
            "teal@0.4": 0.6,
            "auto:0.3": 0.7,
            "nm-4@0.5": 0.595,
        }
        return {
            setting: {"kl_mean": kl.get(setting.partition("@")[0].partition(":")[0], 0.0),
                      "active_weight_fraction": share}
            for setting, share in shares.items()
        }  # fmt: skip

    label = "Qwen2.5-Coder-1.5B"
    known = rows(auto=0.01, teal=0.04, **{"nm-4": 0.5})
    known["teal@0.4"]["kl_mean"] = 0.16
    seconds = {"teal@0.2": {"against_dense": {"median": 1.25}}}
    results = {
        "quality": {"models": {label: {"rows": known}}},
        "times": {"models": {label: {"rows": seconds}}},
    }
    some = field.points(results, label)
    assert {point.setting: point.time for point in some} == {
        "teal@0.2": 0.8, "teal@0.4": None, "auto:0.3": None, "nm-4@0.5": None
    }  # fmt: skip
    for what, level, expected in (
        ("bytes", 0.7, {"auto": 0.01, "teal": 0.08}),
        ("bytes", 0.6, {"teal": 0.16, "nm-4": 0.5}),
        ("time", 0.8, {"teal": 0.04}),
    ):
        found = field.ranking(some, what, level)
        assert [plan for plan, _ in found] == list(expected)
        assert dict(found) == pytest.approx(expected)
    assert field.family_of("teal-top, global") == "top-k of a token"
    assert field.family_of("larosa-static") == field.family_of("teal-profile")
    front = field.front(some, "bytes")
    assert [point.setting for point in front] == ["nm-4@0.5", "teal@0.4", "auto:0.3"]
    assert "| `teal` 0.1600 | `nm-4` 0.5000 | `teal` 0.1600 |" in field.wins_table(results)
