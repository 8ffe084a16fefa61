"""`convert`, `verify` and `cache`: folders made, checked and removed, and their JSON."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import Run
from plan_families import family

from converters.pack_options import PackOptions
from converters.store import prepare
from sparity_edge.cli.commands import packing as packing_commands
from sparity_edge.measure import doctor
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.plans.plan_file import add_plan
from sparity_edge.system.leftovers import partial_name


def test_convert_verify_and_cache(
    run: Run, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    source = str(checkpoint("llama_gqa"))
    code, out, err = run("convert", source, "--dtype", "int8")
    assert (code, out, err) == (0, "llama_gqa-int8\n", "")
    assert run("verify", "llama_gqa-int8")[:2] == (
        0,
        "llama_gqa-int8: all files are as the manifest says.\n",
    )
    assert run("convert", source, "--dtype", "int8")[0] == 1
    assert run("convert", source, "--dtype", "int8", "--force")[0] == 0
    total = f"0 packed, 0.0 MB; 0.0 MB in all, in {tmp_path / 'cache'}\n"
    assert run("cache", "list")[1].startswith(total)
    assert run("cache", "clear")[:2] == (0, "0 removed, 0.0 MB freed.\n")
    assert run("cache", "clear", "nothing")[0] == 1
    (tmp_path / "llama_gqa-int8" / "config.json").write_bytes(b"{}")
    assert run("verify", "llama_gqa-int8")[0] == 1


def test_the_list_counts_all_that_the_folder_holds(
    run: Run, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, elsewhere = tmp_path / "cache", tmp_path / "numba" / ("0a" * 8) / "x.nbi"
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(cache))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "numba"))
    pack = prepare(str(checkpoint("llama_gqa")), PackOptions())
    rest = ["sources/a/x.gguf", "chat_history", "letter.txt", f"packed/{'0' * 64}/half", ".p/x"]
    for number, file in enumerate([*(cache / each for each in rest), elsewhere]):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * (100_000 * (number + 1)))
    (cache / "sources" / "again").symlink_to(cache / "sources" / "a" / "x.gguf")
    facts = json.loads(run("cache", "list", "--json")[1])
    files = [each for each in cache.rglob("*") if each.is_symlink() or each.is_file()]
    assert facts["bytes"] == sum(each.lstat().st_size for each in files)
    (listed,) = facts["packs"]
    assert listed["bytes"] == sum(each.stat().st_size for each in pack.iterdir())
    others = {each["path"]: each["bytes"] for each in facts["others"]}
    assert others[str(cache / "packed")] == 400_000
    assert facts["kernels_elsewhere_bytes"] == 600_000
    assert listed["bytes"] + sum(others.values()) == facts["bytes"]
    out = run("cache", "list")[1]
    assert "0.4 MB              packs that are not whole\n" in out
    assert f"; {facts['bytes'] / 1e6:.1f} MB in all, in {cache}\n" in out
    assert out.endswith(f"Compiled kernels: 0.6 MB, in {tmp_path / 'numba'}\n")


def test_clearing_all_removes_what_is_ours(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, kernels = tmp_path / "cache", tmp_path / "numba"
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(cache))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(kernels))
    ours = [cache / "sources" / "x.gguf", cache / "chat_history", kernels / ("0a" * 8) / "x.nbi"]
    foreign = [cache / "letter.txt", kernels / "others" / "x.nbi"]
    for file in (*ours, *foreign):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 100_000)
    assert run("cache", "clear", "--all", "x")[0] == 1
    assert run("cache", "clear") == (0, "0 removed, 0.0 MB freed.\n", "")
    assert all(file.exists() for file in ours)
    out = run("cache", "clear", "--all")[1]
    assert "All else is removed too, 0.3 MB freed." in out
    assert not any(file.exists() for file in ours)
    assert all(file.exists() for file in foreign)
    assert run("cache", "clear", "--all")[0] == 0


def test_what_dead_runs_left_is_listed_and_cleared(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    dead = partial_name("out").replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
    places = [tmp_path / dead, tmp_path / "cache/packed" / dead, tmp_path / "my-model" / dead]
    for place in places:
        place.mkdir(parents=True)
        (place / "weights").write_bytes(b"x" * 100_000)
    mine = tmp_path / partial_name("other")
    mine.mkdir()
    monkeypatch.setattr(doctor, "_bandwidth", lambda *_: None)
    code, out, _ = run("doctor")
    assert code == 0
    assert all(place.name in re.sub(r"\s", "", out) for place in places)
    facts = json.loads(run("doctor", "--json")[1])["storage"]["leftovers"]
    assert {(each["path"], each["bytes"]) for each in facts} == {
        (str(place), 100_000) for place in places
    }
    assert "3 left behind by interrupted runs removed too, 0.3 MB" in run("cache", "clear")[1]
    assert not any(place.exists() for place in places)
    assert mine.exists()


def keys_of(value: Any) -> Iterator[str]:
    """All keys of a JSON value; those of versions, notes and plans are names."""
    for key, item in value.items() if isinstance(value, dict) else ():
        yield key
        if key not in ("packages", "notes", "active_weight_fraction_by_level"):
            yield from keys_of(item)
    for item in value if isinstance(value, list) else ():
        yield from keys_of(item)


def test_json_is_alone_on_stdout_and_has_plain_keys(
    run: Run, checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    folder = prepare(str(checkpoint("llama_gqa")), PackOptions(layout="mixed"))
    add_plan(open_folder(folder), family(open_packed(folder), "mixed"))
    found = {}
    for words in (
        f"info {folder}", "info --cpu", f"verify {folder}", "cache list", f"plan list {folder}",
        f"plan show {folder} by-hand",
    ):  # fmt: skip
        code, out, err = run(*words.split(), "--json")
        assert (code, err) == (0, ""), words
        found[words.partition(f" {folder}")[0]] = json.loads(out)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", key) for key in keys_of(json.loads(out))), words
    files = [path.stat().st_size for path in folder.glob("[!.]*") if path.name != "sparity.json"]
    about = {"folder": str(folder), "files": len(files), "bytes": sum(files)}
    assert found["verify"] == about
    (pack,) = found["cache list"]["packs"]
    assert pack["path"] == str(folder)
    assert pack["options"]["layout"] == "mixed"
    assert found["plan show"]["levels"][0] == 0
    assert found["info --cpu"]["vectors"]


@pytest.mark.parametrize(
    ("source", "dtype", "out"),
    [
        ("org/name@main", "int4", "name-int4"),
        ("org/name@refs/pr/1:Q4_K_M", None, "name-Q4_K_M-packed"),
        ("smollm2-135m@wheel", None, "smollm2-135m-packed"),
        ("/a/Model.Q4.gguf", "f32", "Model.Q4-f32"),
        ("/", None, "model-packed"),
        ("", None, "model-packed"),
    ],
)
def test_default_name_of_a_conversion(source: str, dtype: str | None, out: str) -> None:
    assert packing_commands._default_out(source, dtype) == out
