"""A packed model of random weights: written once, and a copy that a test may damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from packing import FakeSource

from converters.pack import convert
from converters.pack_options import PackOptions


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(FakeSource(), tmp_path_factory.mktemp("packs") / "model", PackOptions())


@pytest.fixture
def packed(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "model"))
