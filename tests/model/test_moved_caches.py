"""KV caches that take the place of others in a recording: no other is made, and no bit changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparity_edge import Generator
from sparity_edge.kernels.checks import CHECKED
from sparity_edge.model.kv_cache import KVCache
from sparity_edge.model.model import Model

TEXTS = [[5, 9, 12], [7] * 6, [11, 3, 40, 8], [60, 61]]


@pytest.fixture(scope="module", params=["f32", "int8"])
def model(request: Any, checkpoint: Callable[[str], Path]) -> Iterator[Model]:
    with Generator.load(
        checkpoint("llama_gqa"), dtype="f32", threads=2, cache_dtype=request.param
    ) as generator:
        generator.loaded.model.machine.compile_batches(generator.loaded.progress)
        yield generator.loaded.model


def caches(model: Model, capacities: list[int]) -> list[KVCache]:
    """A KV cache for each of TEXTS, which are read into them."""
    made = [model.new_kv_cache() for _ in capacities]
    for cache, ids, capacity in zip(made, TEXTS, capacities):
        cache.reserve(capacity)
        model.read(ids, cache=cache)
    return made


@pytest.mark.skipif(CHECKED, reason="what an operation may touch is written down once")
def test_others_take_their_place(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparity_edge.model.kv_cache.FIRST_CAPACITY", 16)
    monkeypatch.setattr("sparity_edge.model.kv_cache.STEP", 16)
    alone = [
        model.read([30 + index], cache=cache).copy()
        for index, cache in enumerate(caches(model, [16] * 4))
    ]
    first = caches(model, [64, 64, 16, 16])
    model.read_together([30, 31], first[:2])
    assert model.recorded
    # Less room, other caches, another order; then a single one, which grows.
    for order in ([3, 2], [2, 0], [1, 3]):
        made = caches(model, [16, 32, 48, 16])
        logits = model.read_together([30 + each for each in order], [made[each] for each in order])
        assert not model.recorded
        assert np.array_equal(logits, np.stack([alone[each] for each in order]))
    grown = caches(model, [16, 64, 16, 16])
    grown[0].reserve(60)
    assert np.array_equal(model.read_together([30, 31], grown[:2]), np.stack(alone[:2]))
    assert not model.recorded
    grown[0].reserve(100)  # more room than it was recorded for
    model.read_together([5, 6], grown[:2])
    assert model.recorded
