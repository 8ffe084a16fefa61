"""Sources that need no file, and a pack cache of the test's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from packing import FakeSource

import converters.sources
from converters.pack_options import PackOptions
from converters.sources.source import Source
from converters.store import prepare
from sparity_edge.errors import SourceError
from sparity_edge.model.opening import open_packed
from sparity_edge.packed.folder import PackedModel
from sparity_edge.progress import CallContext
from sparity_edge.system import folders


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the pack cache, of this test alone."""
    monkeypatch.setenv(folders.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that `open_source` was asked for; each is a source of the content of that file."""

    def open_fake(model: str, _: CallContext) -> Source:
        asked.append(model)
        if model == "unreachable":
            raise SourceError("no network.")
        source = FakeSource()
        source.label = model
        local = os.path.exists(model)  # noqa: PTH110 - never raises
        content = Path(model).read_text() if local else model
        source.fingerprint = lambda: content  # type: ignore[method-assign]
        return source

    asked: list[str] = []
    monkeypatch.setattr(converters.sources, "open_source", open_fake)
    return asked


@pytest.fixture(scope="module")
def packed(checkpoint: Callable[[str], Path]) -> PackedModel:
    """A tiny Qwen2 with float32 weights, from the pack cache."""
    return open_packed(prepare(str(checkpoint("qwen2_plain")), PackOptions(dtype="f32")))
