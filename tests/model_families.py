"""Families of models that exist in a test only: a file in a folder of its own, found like any."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import sparity_edge.model.families as known
from sparity_edge.config.family import Family


@contextlib.contextmanager
def registered(folder: Path, name: str, code: str) -> Iterator[Family]:
    """Write `code` to `NAME.py` in `folder`, where it is found as installed families are."""
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    known.__path__.append(str(folder))
    known.families.cache_clear()
    try:
        yield next(each for each in known.families().values() if each.model_type == name)
    finally:
        known.__path__.remove(str(folder))
        known.families.cache_clear()
        sys.modules.pop(f"{known.__name__}.{name}", None)
