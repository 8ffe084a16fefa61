"""Packed folders on the Hub, and the licence on its way from a source to a packed folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.file_download
import pytest
from fake_downloads import COMMIT, MODEL, FakeHub
from fake_hub_server import HubServer, Repository
from packed_files import edit_manifest
from plan_families import family

from converters.pack import convert
from converters.pack_options import PackOptions
from converters.ready import prepare_for
from converters.sources import open_source
from converters.sources.card import card_of_folder, card_of_gguf
from converters.sources.remote.downloads import PACKED, downloads, remove_download
from converters.store import open_any, packed_path, prepare
from sparity_edge.cli.main import main
from sparity_edge.errors import FormatError, OptionError, SourceError
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.packed.manifest import card_in, files_to_fetch, read_manifest
from sparity_edge.plans.plan_file import add_plan
from sparity_edge.progress import CallContext

ADDRESS = f"https://huggingface.co/{MODEL}"


@pytest.fixture
def packed(tmp_path: Path, checkpoint: Callable[[str], Path]) -> Path:
    with open_source(str(checkpoint("llama_gqa"))) as source:
        return convert(source, tmp_path / "packed", PackOptions(dtype="int8"))


@pytest.fixture
def hub(fake: FakeHub, packed: Path) -> FakeHub:
    fake.folder = packed
    (packed / "diary.txt").write_text("private")
    return fake


def test_it_is_used_where_it_was_fetched_to(hub: FakeHub) -> None:
    path = prepare(MODEL, PackOptions())
    assert path == hub.repository / "snapshots" / COMMIT
    assert set(read_manifest(path)["files"]) < {each.name for each in path.iterdir()}
    assert not (path / "diary.txt").exists()
    hub.requests.clear()
    for name in (MODEL, ADDRESS, f"{MODEL}@main"):
        assert prepare(name, PackOptions()) == prepare_for(name, sparse=True) == path
    assert packed_path(MODEL) == path
    assert packed_path(f"{MODEL}:Q4_K_M") is None
    assert not hub.requests


def test_a_plan_is_looked_for_in_it_before_one_is_made(hub: FakeHub) -> None:
    path = prepare_for(ADDRESS, sparse=True, plan="cats")
    assert path == hub.repository / "snapshots" / COMMIT


def test_commands_find_it(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    path = prepare(MODEL, PackOptions())
    assert main(["plan", "list", MODEL]) == 0
    assert "No plans" in capsys.readouterr().out
    add_plan(open_folder(path), family(open_packed(path), "input"))
    assert main(["plan", "list", MODEL]) == 0
    assert "by-hand" in capsys.readouterr().out
    assert not (hub.folder / "plan-by-hand.safetensors").exists()


def test_it_is_a_source_too_and_is_listed_and_removed(hub: FakeHub, tmp_path: Path) -> None:
    with open_any(MODEL) as source:
        again = convert(source, tmp_path / "again", PackOptions(layout="input"))
    assert read_manifest(again)["source"] == MODEL
    with open_any(MODEL, CallContext(offline=True)) as source:
        assert source.label == MODEL
    found = downloads()
    assert [(each.name, each.form) for each in found] == [(MODEL, PACKED)]
    assert found[0].path == packed_path(MODEL)
    remove_download(found[0])
    assert not hub.repository.exists()


def test_what_disagrees_or_is_of_another_version_is_refused_before_weights_come(
    hub: FakeHub,
) -> None:
    with pytest.raises(OptionError, match="not as asked for"):
        prepare(MODEL, PackOptions(dtype="f32"))
    shutil.rmtree(hub.repository)
    edit_manifest(hub.folder, lambda manifest: manifest.update(version=99))
    with pytest.raises(FormatError, match="version"):
        prepare(MODEL, PackOptions())
    names = {each.name for each in (hub.repository / "snapshots" / COMMIT).iterdir()}
    assert names == {"sparity.json", "config.json"}
    shutil.rmtree(hub.repository)
    hub.extra = ("../evil",)
    edit_manifest(
        hub.folder,
        lambda manifest: manifest.update(version=8, files={"../evil": {"size": 1, "sha256": ""}}),
    )
    with pytest.raises(FormatError, match="not a plain file name"):
        prepare(MODEL, PackOptions())


def test_offline_it_must_be_here(hub: FakeHub) -> None:
    with pytest.raises(SourceError, match="not on this machine"):
        prepare(MODEL, PackOptions(), CallContext(offline=True))
    assert not hub.requests


def test_from_a_server_by_the_real_client(
    packed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server, constants = HubServer(), huggingface_hub.constants
    template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    for module in (constants, huggingface_hub.file_download):  # the latter in older versions
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    files = {each.name: each.read_bytes() for each in packed.iterdir()}
    server.repositories[MODEL] = Repository(branches={"main": files | {"README.md": b"# x"}})
    path = prepare(MODEL, PackOptions())
    assert files_to_fetch(path) == {each.name for each in path.iterdir()} == set(files)
    server.shutdown()
    server.server_close()


@pytest.fixture
def carded(folder: Callable[[str], Path]) -> Callable[[str], dict[str, str]]:
    """What is carried of a README.md in a Hugging Face folder."""
    path = folder("llama_gqa")

    def carry(text: str) -> dict[str, str]:
        (path / "README.md").write_text(text, encoding="utf-8")
        with open_source(str(path)) as source:
            return dict(source.card)

    return carry


def test_the_licence_of_a_folder(carded: Callable[[str], dict[str, str]]) -> None:
    assert carded("---\nlicense: mit\nbase_model: a/b\n---\n# x") == {"license": "mit"}
    assert carded("---\nlicense: [mit, apache-2.0]\n---") == {"license": "mit, apache-2.0"}
    own = "---\nlicense: other\nlicense_name: llama3\nlicense_link: https://x\n---"
    assert carded(own) == {
        "license": "other", "license_name": "llama3", "license_link": "https://x",
    }  # fmt: skip
    for text in ("", "# x", "---\nlicense: 3\n---", "---\nlicense: [[\n---", "---\n- a\n---"):
        assert carded(text) == {}, text
    assert carded(f"---\nlicense: {'x' * 600}\n---") == {}
    assert carded('---\nlicense: "a\\nb"\n---') == {}


def test_a_folder_without_a_card(tmp_path: Path) -> None:
    assert card_of_folder(tmp_path) == {}
    (tmp_path / "README.md").write_bytes(b"---\nlicense: \xff\n---")
    assert card_of_folder(tmp_path) == {}


def test_the_licence_goes_from_the_hub_through_every_conversion(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = fake.model_info

    def with_card(_: Any, repository: str, **options: Any) -> SimpleNamespace:
        card = huggingface_hub.ModelCardData(license="apache-2.0")
        return SimpleNamespace(**vars(asked(repository, **options)), card_data=card)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", with_card)
    wanted = {"license": "apache-2.0", "base_model": MODEL}
    with open_any(MODEL) as source:
        first = convert(source, tmp_path / "first", PackOptions())
    with open_any(str(first)) as source:
        second = convert(source, tmp_path / "second", PackOptions(layout="input"))
    assert card_in(read_manifest(first)) == card_in(read_manifest(second)) == wanted
    with open_any(MODEL, CallContext(offline=True)) as source:
        assert source.card == {"base_model": MODEL}


def test_the_licence_in_metadata_of_a_gguf_file(write: Callable[..., str]) -> None:
    facts: dict[str, Any] = {"general.license": "mit", "general.license.name": 3}
    assert card_of_gguf(facts) == {"license": "mit"}
    assert card_of_gguf({}) == {}
    with open_source(write()) as source:
        assert source.card == {}


def test_a_manifest_may_say_anything_of_it() -> None:
    for card in (None, 3, [], {"license": 3}, {"license": "a\x1b[2J"}, {"license": ""}):
        assert card_in(json.loads(json.dumps({"card": card}))) == {}
