"""The benchmarks as modules, and a packed model with a plan for them to measure."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packing import pack_folder
from plan_families import family

from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.plans.plan_file import add_plan

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """bench(name) imports a module of the folder, which is no package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed folder that carries the plan by-hand."""
    out = tmp_path_factory.mktemp("packs") / "mixed"
    path = pack_folder(checkpoint("llama_untied"), out, "f32", "mixed")
    add_plan(open_folder(path), family(open_packed(path), "mixed"))
    return path
