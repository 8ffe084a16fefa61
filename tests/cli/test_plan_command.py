"""`plan show` and `plan add`: tables for a reader, and which packs a plan is copied into."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import Run
from plan_families import family

from converters.pack_options import PackOptions
from converters.store import prepare
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.plans.plan_file import add_plan, plan_names, remove_plan

EVIDENCE = [{"sparsity": 0.15, "active": 0.84, "kl": 0.01}, {"sparsity": 0.25, "kl": 0.021}]


@pytest.fixture
def model(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    return str(checkpoint("llama_gqa"))


def pack(model: str, layout: str) -> Path:
    return prepare(model, PackOptions(layout=layout))


def test_a_plan_is_shown_as_tables(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pack(model, "mixed")
    notes = {"tokens": 99, "estimated_kl": [0.0, 0.5], "evidence": EVIDENCE, "bad": "\x1b[2J"}
    made = replace(family(open_packed(folder), "mixed"), notes=notes)
    add_plan(open_folder(folder), made)
    code, out, err = run("plan", "show", model)  # the only plan
    assert (code, err) == (0, "")
    assert not set("{}\x1b") & set(out)
    lines = [line.split() for line in out.splitlines()]
    for words in (["tokens", "99"], ["sparsity", "active", "kl"], ["0.15", "0.84", "0.01"],
                  ["0.25", "0.021"], ["estimated", "kl", "0,", "0.5"],
                  ["sparsity", "level", "active", "weight", "fraction"]):  # fmt: skip
        assert words in lines
    assert run("plan", "show", model, "by-hand")[1] == out
    monkeypatch.setattr("sparity_edge.terminal.screen.columns", lambda _: 40)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    narrow = re.sub(r"\x1b\[[0-9;]*m", "", run("plan", "show", model)[1])
    assert max(map(len, narrow.splitlines())) <= 40
    assert "0.021" in narrow
    assert json.loads(run("plan", "show", model, "--json")[1])["notes"] == notes


def test_which_plan_is_shown_where_none_is_named(run: Run, model: str) -> None:
    folder = pack(model, "mixed")
    assert "calibrate" in run("plan", "show", model)[2]
    made = family(open_packed(folder), "mixed")
    for name in ("one", "two"):
        add_plan(open_folder(folder), replace(made, name=name))
    assert "one, two; name the one to show" in run("plan", "show", model)[2]
    add_plan(open_folder(folder), replace(made, name="auto"))
    assert run("plan", "show", model)[1].startswith("plan auto")


def test_a_plan_is_added_to_the_packs_that_can_carry_it(run: Run, model: str) -> None:
    folders = {layout: pack(model, layout) for layout in ("dense", "mixed", "input")}
    add_plan(open_folder(folders["mixed"]), family(open_packed(folders["mixed"]), "mixed"))
    file = folders["mixed"].parent.parent / "other"
    folders["mixed"].rename(file)
    again = pack(model, "mixed")
    code, out, err = run("plan", "add", model, str(file / "plan-by-hand.safetensors"))
    assert (code, err) == (0, "")
    assert str(again) in out
    carriers = {layout for layout, each in folders.items() if "by-hand" in plan_names(each)}
    assert carriers == {"mixed"}
    remove_plan(again, "by-hand")
    code, out, err = run(
        "plan", "add", str(folders["dense"]), str(file / "plan-by-hand.safetensors")
    )
    assert (code, out) == (1, "")
    assert "needs layout mixed" in err
    assert "--layout mixed" in err
