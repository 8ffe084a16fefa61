"""A packed model with a plan: written once, and a copy that a test may damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from packing import FakeSource
from plan_families import family

from converters.pack import convert
from converters.pack_options import PackOptions
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.plans.plan_file import add_plan


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of layout `neurons` with one plan that has everything a plan can have."""
    folder = tmp_path_factory.mktemp("plans") / "model"
    convert(FakeSource(), folder, PackOptions(layout="neurons"))
    add_plan(
        open_folder(folder), family(open_packed(folder), "neurons", weights=True, centres=True)
    )
    return folder


@pytest.fixture
def packed(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "model"))
