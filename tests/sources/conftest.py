"""GGUF files, checkpoints and downloads that the tests of several sources share."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_files
import pytest
from fake_downloads import FakeHub, FakePip


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def _write(**options: Any) -> str:
        return str(gguf_files.write(tmp_path / "model.gguf", **options))

    return _write


@pytest.fixture
def folder(tmp_path: Path, checkpoint: Callable[[str], Path]) -> Callable[[str], Path]:
    """A copy of a tiny checkpoint that the test may damage."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(checkpoint(name), tmp_path / name))

    return copy


@pytest.fixture
def fake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: Callable[[str], Path]
) -> FakeHub:
    return FakeHub(monkeypatch, tmp_path / "hub", checkpoint("llama_sharded"))


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> FakePip:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    return FakePip(monkeypatch, b"GGUF" + bytes(3 << 20))
