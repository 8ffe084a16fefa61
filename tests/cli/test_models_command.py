"""`pull`, `list` and `rm`: what is fetched, shown and removed, and what is left alone."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_files
import huggingface_hub
import pytest
from fake_downloads import MODEL, FakeHub
from fakes import Input, Run

from converters.pack_options import PackOptions
from converters.sources.remote.hub import ALIASES, Alias
from converters.store import prepare
from sparity_edge.cli.main import main
from sparity_edge.system.use_marks import UseMark

Q8 = [f"tiny-Q8_0-0000{part}-of-00002.gguf" for part in (1, 2)]


@pytest.fixture
def hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: Callable[[str], Path]
) -> FakeHub:
    """A repository with a checkpoint in safetensors and two GGUF files, and a cache of packs."""
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(checkpoint("llama_gqa"), tmp_path / "repository")
    gguf_files.write(folder / "tiny-Q4_K_M.gguf")
    shutil.copy(folder / "tiny-Q4_K_M.gguf", folder / "tiny-Q6_K.gguf")
    return FakeHub(monkeypatch, tmp_path / "hub", folder)


def listed(run: Run) -> list[dict[str, Any]]:
    code, out, err = run("list", "--json")
    assert (code, err) == (0, "")
    found: list[dict[str, Any]] = json.loads(out)
    return found


def names(run: Run) -> list[tuple[str, str]]:
    return [(each["name"], each["kind"]) for each in listed(run)]


def test_from_pull_to_rm(run: Run, hub: FakeHub) -> None:
    assert run("list")[1].startswith("No models are kept")
    code, out, _ = run("pull", f"{MODEL}:q4_k_m")
    path = Path(out.strip())
    assert (code, path.name) == (0, "tiny-Q4_K_M.gguf")
    assert path.is_file()
    folder = Path(run("pull", MODEL)[1].strip())
    assert (folder / "model.safetensors").is_file()
    pack = prepare(f"{MODEL}:Q4_K_M", PackOptions())
    checkpoint, file, packed = listed(run)
    assert (checkpoint["name"], checkpoint["format"]) == (MODEL, "safetensors")
    assert checkpoint["path"] == str(folder)
    size = (hub.folder / "tiny-Q4_K_M.gguf").stat().st_size
    assert (file["name"], file["format"], file["bytes"]) == (f"{MODEL}:Q4_K_M", "GGUF Q4_K_M", size)
    assert (file["from"], file["key"]) == ("Hugging Face Hub", None)
    assert (packed["kind"], packed["path"], packed["key"]) == ("pack", str(pack), pack.name)
    out = run("list")[1]
    assert out.splitlines()[0].split()[:3] == ["NAME", "SIZE", "FORMAT"]
    assert out.endswith(f"3 kept, {sum(each['bytes'] for each in listed(run)) / 1e6:.1f} MB.\n")
    code, out, _ = run("rm", f"{MODEL}:q4_k_m", "--only", "downloads", "--yes")
    assert (code, out) == (0, f"1 removed, {size / 1e6:.1f} MB freed.\n")
    assert not path.exists()
    assert names(run) == [(MODEL, "download"), (f"{MODEL}:Q4_K_M", "pack")]
    assert run("rm", pack.name[:8], "-y")[0] == 0
    assert not pack.exists()
    assert run("rm", f"https://hf.co/{MODEL}", "-y")[0] == 0
    assert names(run) == []
    assert not hub.repository.exists()


@pytest.mark.parametrize("version", ["this", "0.30"])
def test_a_content_with_two_names_stays_for_the_other(
    run: Run, hub: FakeHub, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if version == "0.30":
        monkeypatch.delattr(huggingface_hub.HFCacheInfo, "delete_files", raising=False)
    for tag in ("Q4_K_M", "Q6_K"):
        run("pull", f"{MODEL}:{tag}")
    assert len(list((hub.repository / "blobs").iterdir())) == 1
    assert run("rm", f"{MODEL}:Q6_K", "-y")[0] == 0
    (left,) = listed(run)
    assert Path(left["path"]).read_bytes() == (hub.folder / "tiny-Q4_K_M.gguf").read_bytes()
    assert run("rm", MODEL, "-y")[0] == 0
    assert not hub.repository.exists()


def test_what_runs_elsewhere_only_is_not_listed(run: Run, hub: FakeHub) -> None:
    run("pull", MODEL)
    config = next(hub.repository.rglob("config.json"))
    text = config.read_text().replace("LlamaForCausalLM", "BertModel").replace("llama", "bert")
    config.unlink()
    config.write_text(text)
    assert listed(run) == []


def test_a_download_that_broke_off(run: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    part = hub.repository / "blobs" / "0.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"GGUF")
    assert [(each["name"], each["format"]) for each in listed(run)] == [(MODEL, "unfinished")]
    run("pull", f"{MODEL}:Q4_K_M")
    assert run("rm", f"{MODEL}:Q4_K_M", "-y")[0] == 0
    assert part.exists()
    monkeypatch.setitem(ALIASES, "tiny", Alias(MODEL, ALIASES["smollm2-135m"].wheel))
    assert run("rm", "tiny", "-y")[0] == 0
    assert not hub.repository.exists()


def test_all_parts_of_a_split_file_go(run: Run, hub: FakeHub) -> None:
    run("pull", f"{MODEL}:Q4_K_M")
    entry = next(hub.repository.rglob("tiny-Q4_K_M.gguf"))
    for name in Q8:
        (entry.parent / name).write_bytes(b"GGUF")
    assert [each["format"] for each in listed(run)] == ["GGUF Q4_K_M", "GGUF Q8_0"]
    assert run("rm", f"{MODEL}:Q8_0", "-y")[:2] == (0, "1 removed, 0.0 MB freed.\n")
    assert [each.name for each in entry.parent.iterdir()] == [entry.name]


def test_what_is_named_wrongly(run: Run, hub: FakeHub, tmp_path: Path) -> None:
    run("pull", f"{MODEL}:Q4_K_M")
    (tmp_path / "mine.gguf").write_bytes(b"mine")
    for name in ("another/model", str(tmp_path / "mine.gguf"), ".", "..", "/", "tiny"):
        code, _, err = run("rm", name, "--yes")
        assert code == 1
        assert "no such model is kept" in err
    assert run("rm", f"{MODEL}:Q4_K_M", "--only", "packs", "-y")[0] == 1
    assert f"Did you mean {MODEL}:Q4_K_M?" in run("rm", f"{MODEL}:Q4_KM", "-y")[2]
    assert "is a file or folder here already" in run("pull", str(hub.folder))[2]
    assert (tmp_path / "mine.gguf").read_bytes() == b"mine"
    assert len(listed(run)) == 1


def test_links_are_not_followed(run: Run, hub: FakeHub, tmp_path: Path) -> None:
    run("pull", f"{MODEL}:Q4_K_M")
    entry = next(hub.repository.rglob("tiny-Q4_K_M.gguf"))
    mine = tmp_path / "mine-Q8_0.gguf"
    mine.write_bytes(b"mine")
    (entry.parent / mine.name).symlink_to(mine)
    (tmp_path / "my folder").mkdir()
    (tmp_path / "my folder" / "letter.gguf").write_bytes(b"mine")
    (entry.parent / "folder").symlink_to(tmp_path / "my folder")
    # What is a link as a whole belongs to somebody else.
    shutil.copytree(hub.repository, tmp_path / "theirs", symlinks=True)
    (hub.cache / "models--some--other").symlink_to(tmp_path / "theirs")
    assert {each["name"] for each in listed(run)} == {f"{MODEL}:Q4_K_M", f"{MODEL}:Q8_0"}
    assert run("rm", f"{MODEL}:Q8_0", "-y")[0] == 0
    assert run("rm", MODEL, "-y")[0] == 0
    assert not hub.repository.exists()
    assert mine.read_bytes() == (tmp_path / "my folder" / "letter.gguf").read_bytes() == b"mine"
    assert next((tmp_path / "theirs").rglob("tiny-Q4_K_M.gguf")).is_symlink()
    assert next((tmp_path / "theirs").glob("blobs/*")).is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is marked there")
def test_what_is_in_use_stays(run: Run, hub: FakeHub) -> None:
    run("pull", f"{MODEL}:Q4_K_M")
    pack = prepare(f"{MODEL}:Q4_K_M", PackOptions())
    with UseMark([next(hub.repository.rglob("tiny-Q4_K_M.gguf"))]):
        code, _, err = run("rm", MODEL, "-y")
        assert code == 1
        assert f"{MODEL}:Q4_K_M is read or fetched by a process" in err
    with UseMark([pack]):
        assert "is in use by a process" in run("rm", MODEL, "-y")[2]
        assert "is in use by a process" in run("cache", "clear", pack.name)[2]
        out = run("cache", "clear")[1]
        assert out.startswith("0 removed, 0.0 MB freed.\n1 in use by processes that run stay.\n")
    assert len(listed(run)) == 2
    lock = hub.cache / ".locks" / hub.repository.name / "0.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    with UseMark([lock]):  # the Hub client fetches a file of the model
        assert run("rm", MODEL, "-y")[0] == 1
    assert run("rm", MODEL, "-y")[0] == 0
    assert listed(run) == []


class Terminal(Input):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "left"), [("n\n", 1), ("", 1), ("y\n", 0)])
@pytest.mark.usefixtures("hub")
def test_rm_asks(
    answer: str,
    left: int,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("pull", f"{MODEL}:Q4_K_M")
    code, out, err = run("rm", MODEL, stdin="y\n")
    assert (code, out) == (1, "")
    assert "nobody can answer here; give --yes" in err
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(answer.encode()), encoding="utf-8"))
    assert main(["rm", MODEL]) == 0
    shown = capsys.readouterr()
    assert f"{MODEL}:Q4_K_M" in shown.err
    assert "Remove? [y/N]" in shown.err
    assert ("Nothing was removed." in shown.err) == bool(left)
    assert len(listed(run)) == left
