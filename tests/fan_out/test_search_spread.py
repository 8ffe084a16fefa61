"""A search gives the same plan bit for bit in one process, in several and on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packing import pack_folder

from converters.allocate.evolution import Effort, Stage
from converters.calibrate import calibrate
from converters.methods import evopress

# Dask and its tornado warn of what their own code does.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def searched(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: Any
) -> Callable[..., bytes]:
    """Searches somewhere, and gives the plan's file."""
    monkeypatch.setattr(evopress, "effort", lambda _: Effort(2, 4, (Stage(2, 1), Stage(1, 2))))
    monkeypatch.setattr(evopress, "BUDGETS", (0.5,))
    path = pack_folder(checkpoint("llama_gqa"), tmp_path / "model", "f32", "input")

    def search(**spread: Any) -> bytes:
        calibrate(str(path), tokens=1024, methods=["evopress"], threads=2, **spread)
        return (path / "plan-evopress.safetensors").read_bytes()

    return search


def test_processes(searched: Callable[..., bytes]) -> None:
    pytest.importorskip("joblib", reason="the extra [parallel] is not installed")
    assert searched() == searched(workers=4)  # and two on a cluster


def test_a_cluster(searched: Callable[..., bytes], cluster: str) -> None:
    assert searched() == searched(cluster=cluster)
