"""Rotated copies of tiny models, with random bases: folding must not depend on which they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rotations import random_bases

from converters.pack import convert
from converters.pack_options import PackOptions
from converters.rotation.rotated import RotatedSource
from converters.store import open_any


@pytest.fixture(scope="session")
def rotate(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """rotate(case, kind, dtype, layout) -> a rotated packed folder of a tiny model, made once."""
    known: dict[tuple[str, ...], Path] = {}

    def rotated(case: str, kind: str, dtype: str = "f32", layout: str = "dense") -> Path:
        key = (case, kind, dtype, layout)
        if key not in known:
            source = open_any(str(checkpoint(case)))
            with RotatedSource(source, kind, random_bases(source, kind)) as turned:
                out = tmp_path_factory.mktemp("rotated") / "-".join(key)
                known[key] = convert(turned, out, PackOptions(dtype, layout=layout))
        return known[key]

    return rotated
