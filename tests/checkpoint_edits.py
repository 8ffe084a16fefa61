"""Checkpoint folders edited by hand, and the one sentence that refuses them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters.sources import open_source
from sparity_edge.errors import SparityError

UP = "model.layers.0.mlp.up_proj.weight"


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused(path: Path, sentence: str) -> None:
    with pytest.raises(SparityError, match=sentence) as caught:
        open_source(str(path))
    assert len(str(caught.value).splitlines()) == 1
