"""`push`: packed folders sent to a Hub on loopback by the real client, and what may go wrong."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.utils._http
import pytest
from fake_hub_server import DROP, READER, WRITER, HubServer
from fakes import Run
from huggingface_hub.errors import OfflineModeIsEnabled
from packed_files import edit_manifest
from packing import FakeSource
from plan_families import family

from converters.allocate.evidence import Evidence
from converters.pack import convert
from converters.pack_options import PackOptions
from converters.publish import upload
from converters.publish.contents import contents_of
from sparity_edge.model.opening import open_folder, open_packed, verify_packed
from sparity_edge.packed.manifest import listed_files
from sparity_edge.plans.plan_file import add_plan

NAME = "me/tiny"
# Of the library below the Hub's client, which says it to the client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two plans, of one of which a KL was measured."""
    source = FakeSource()
    source.label, source.card = "/home/somebody/secret/tiny.gguf", {"license": "mit"}
    folder = convert(
        source, tmp_path_factory.mktemp("push") / "model", PackOptions(layout="neurons")
    )
    plan = family(open_packed(folder), "neurons")
    measured = {"evidence": [asdict(Evidence(0.25, 0.761, 0.0123))]}
    for name, notes in (("measured", measured), ("other", {})):
        add_plan(open_folder(folder), type(plan)(**{**vars(plan), "name": name, "notes": notes}))
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "model"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    server, constants = HubServer(), huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    at_once = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})  # between its retries
    monkeypatch.setattr(huggingface_hub.utils._http, "time", at_once)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setattr(upload, "LARGE", 1 << 10)
    yield server
    server.shutdown()
    server.server_close()


def test_a_folder_and_a_card_go_up_and_nothing_else(
    run: Run, hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    (folder / "diary.txt").write_text("private")
    (folder / "README.md").write_text("mine")
    code, out, err = run("push", str(folder), NAME, "--private", "--commit-message", "first")
    assert (code, out) == (0, f"{hub.url}/{NAME}\n"), err
    there = hub.repositories[NAME]
    assert (there.private, there.messages) == (True, ["first"])
    sent = {name: text for name, text in there.branches["main"].items() if name[0] != "."}
    listed = json.loads((folder / "sparity.json").read_text(encoding="utf-8"))["files"]
    assert set(sent) == {*listed, "sparity.json", "README.md"}
    assert b"secret" not in b"".join(sent.values())
    card = sent["README.md"].decode()
    assert "license: mit" in card
    assert "| measured | 0.25 | 0.761 | 0.0123 |" in card
    assert "| other | 0.20 | 0.800 | not measured |" in card
    assert f"sparity-edge chat {NAME}" in card
    assert "tiny.gguf" in card
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    for name, text in sent.items():
        (pulled / name).write_bytes(text)
    assert set(verify_packed(pulled)) == set(listed)


def test_a_dry_run_shows_all_and_asks_nobody(run: Run, hub: HubServer, folder: Path) -> None:
    code, out, err = run("push", str(folder), NAME, "--dry-run", "-v")
    assert code == 0
    assert "No KL has been measured of other" in err
    assert all(f"  {name} " in out for name in listed_files(folder))
    assert "license: mit" in out
    assert not hub.requests


def test_a_second_push_replaces_the_first_and_sends_only_what_is_new(
    run: Run, hub: HubServer, folder: Path
) -> None:
    assert run("push", str(folder), NAME)[0] == 0
    files, before = hub.repositories[NAME].branches["main"], hub.sent()
    files["LICENSE"], files["model-00002-of-00002.safetensors"] = b"text", b"of another pack"
    (folder / "plan-other.safetensors").unlink()
    edit_manifest(folder, lambda manifest: manifest["files"].pop("plan-other.safetensors"))
    assert run("push", str(folder), NAME, "--license", "apache-2.0")[0] == 0
    files = hub.repositories[NAME].branches["main"]
    assert "LICENSE" in files
    assert "plan-other.safetensors" not in files
    assert "model-00002-of-00002.safetensors" not in files
    assert hub.sent() == before
    assert json.loads(files["sparity.json"])["card"] == {"license": "apache-2.0"}


def test_a_branch_is_made(run: Run, hub: HubServer, folder: Path) -> None:
    assert run("push", str(folder), NAME, "--revision", "v1")[0] == 0
    branches = hub.repositories[NAME].branches
    assert "sparity.json" in branches["v1"]
    assert "sparity.json" not in branches["main"]


def test_what_is_refused_before_anybody_is_asked(
    run: Run, hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    for words, reason in [
        ((str(tmp_path), NAME), "is not a packed model"),
        ((str(folder), "tiny"), "is no name of a repository"),
        ((str(folder), "me/tiny@v1"), "is no name of a repository"),
        ((str(folder), NAME, "--revision", "../x"), "is no name of a branch"),
        ((str(folder), NAME, "--license", " "), "names no licence"),
    ]:
        code, out, err = run("push", *words)
        assert (code, out, reason in err) == (1, "", True), err
    edit_manifest(folder, lambda manifest: manifest.pop("card"))
    code, _, err = run("push", str(folder), NAME, "--dry-run")
    assert code == 1
    assert "give --license NAME" in err
    assert not hub.requests


def test_links_out_of_the_folder_and_foreign_files_are_refused(
    run: Run, hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes((folder / "tokenizer.json").read_bytes())
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(secret)
    assert "leads out of the folder" in run("push", str(folder), NAME)[2]
    (folder / "tokenizer.json").unlink()
    secret.rename(folder / "tokenizer.json")

    def list_another(manifest: dict[str, Any]) -> None:
        manifest["files"][".netrc"] = manifest["files"]["config.json"]

    shutil.copy(folder / "config.json", folder / ".netrc")
    edit_manifest(folder, list_another)
    assert "which is no file of a packed model" in run("push", str(folder), NAME)[2]
    assert not hub.requests


def test_a_damaged_folder_is_not_sent(run: Run, hub: HubServer, folder: Path) -> None:
    shard = next(folder.glob("model-*"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert "does not match its SHA-256" in run("push", str(folder), NAME)[2]
    assert not hub.requests


def test_other_models_are_not_overwritten(run: Run, hub: HubServer, folder: Path) -> None:
    run("push", str(folder), NAME)
    there = hub.repositories[NAME]
    assert "is there already and public" in run("push", str(folder), NAME, "--private")[2]
    there.branches["main"] = {"model.safetensors": b"", "config.json": b""}
    err = run("push", str(folder), NAME)[2]
    assert "holds something else (config.json and 1 more)" in err
    assert len(there.messages) == 1


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("token", "name", "reason"),
    [
        ("", NAME, "does not know who you are; log in with: hf auth login"),
        (READER, NAME, "your token may not write there"),
        (WRITER, "you/tiny", "give it write access to you"),
    ],
)
def test_who_may_not_write(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, token: str, name: str, reason: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    code, _, err = run("push", str(folder), name)
    assert (code, reason in err) == (1, True), err


@pytest.mark.parametrize(
    ("request_", "status", "reason"),
    [
        ("POST /api/repos/create", 409, "the name is taken"),
        ("POST /api/models", 404, "the Hub has no such repository, owner or branch"),
        ("POST /api/models/me/tiny/commit", 412, "somebody else changed the repository meanwhile"),
        ("POST /api/models/me/tiny/commit", 413, "the Hub refused"),
        ("POST /api/models/me/tiny/commit", 429, "the Hub asks to wait"),
        ("POST /api/models/me/tiny/commit", 500, "the upload broke off"),
        ("PUT /objects", DROP, "the upload broke off"),
        ("GET /api/models", DROP, "the upload broke off"),
    ],
)
def test_a_push_that_breaks_off_leaves_the_repository_and_can_be_repeated(
    run: Run, hub: HubServer, folder: Path, request_: str, status: int, reason: str
) -> None:
    hub.fails[request_] = status
    code, out, err = run("push", str(folder), NAME)
    assert (code, out, reason in err) == (1, "", True), err
    assert len(err.strip().splitlines()[-1]) < 400
    there = hub.repositories.get(NAME)
    assert there is None or list(there.branches["main"]) == [".gitattributes"]
    hub.fails.clear()
    sent = hub.sent()
    assert run("push", str(folder), NAME)[0] == 0
    assert status == DROP or len(hub.sent()) == len(set(hub.sent())) >= len(sent)


def test_a_card_that_the_hub_refuses(run: Run, hub: HubServer, folder: Path) -> None:
    hub.card_fault = '"license" must be one of [apache-2.0, mit]'
    err = run("push", str(folder), NAME, "--license", "mine")[2]
    assert '"license" must be one of [apache-2.0, mit]); give --license by a name of' in err
    assert not hub.repositories[NAME].messages


@pytest.mark.usefixtures("hub")
def test_no_network_and_offline(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "check the network" in run("push", str(folder), NAME)[2]

    def refuse(*_: Any, **__: Any) -> None:  # as the client does, unless it has a session already
        raise OfflineModeIsEnabled("the client's words")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    assert "HF_HUB_OFFLINE forbids to send" in run("push", str(folder), NAME)[2]


def test_an_interruption_leaves_the_repository_as_it_was(hub: HubServer, folder: Path) -> None:
    def stop(*told: Any) -> None:
        if told[1]:
            raise KeyboardInterrupt

    contents = contents_of(folder, NAME)
    with pytest.raises(KeyboardInterrupt):
        upload.upload(contents, NAME, progress=stop)
    assert list(hub.repositories[NAME].branches["main"]) == [".gitattributes"]
    arrived = hub.sent()
    assert len(arrived) == 1
    assert upload.upload(contents, NAME) == f"{hub.url}/{NAME}"
    assert hub.sent().count(arrived[0]) == 1


def test_base_model_and_the_licence_of_its_own_name(folder: Path) -> None:
    card = {"license": "other", "license_name": "llama3.2", "license_link": "LICENSE [x](y)"}

    def write(manifest: dict[str, Any]) -> None:
        manifest["source"] = "org/base:Q4_K_M"
        manifest["card"] = {**card, "base_model": "org/base", "more": 1}

    edit_manifest(folder, write)
    text = contents_of(folder, NAME).texts["README.md"].decode()
    assert "base_model: org/base" in text
    assert "base_model_relation: quantized" in text
    assert "[org/base](https://huggingface.co/org/base) (org/base:Q4\\_K\\_M)" in text
    assert "other (llama3.2), LICENSE \\[x\\](y)" in text
    edit_manifest(folder, lambda manifest: manifest["card"].update(base_model="org/base](evil"))
    assert "evil" not in contents_of(folder, NAME).texts["README.md"].decode()
