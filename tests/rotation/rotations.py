"""Orthogonal matrices, for tests of what rotation does whatever they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.sources.source import Source


def random_bases(source: Source, kind: str) -> list[Any]:
    """Orthogonal matrices, one for each layer, all the same if the kind is global."""
    config, random = source.config, np.random.default_rng(7)
    size = config.hidden_size
    count = config.num_hidden_layers if kind == "layers" else 1
    found = [np.linalg.qr(random.normal(size=(size, size)))[0] for _ in range(count)]
    bases = [np.ascontiguousarray(each, dtype=np.float32) for each in found]
    return bases if kind == "layers" else bases * config.num_hidden_layers
