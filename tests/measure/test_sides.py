"""What is timed: twins that share weights, contexts of a depth, memory in a fresh process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from sparity_edge import Generator
from sparity_edge.errors import OptionError, SparityError
from sparity_edge.measure import context, fresh
from sparity_edge.measure.decoding import time_sequence

pytestmark = pytest.mark.usefixtures("small_pool")


def test_a_fresh_process_measures_memory(planned: Path) -> None:
    dial = {"plan": None, "sparsity": 0.2, "level": None}
    found = fresh.in_fresh_process(fresh.peak_memory, planned, 1, 8, 16, "int8", dial)
    assert found["peak"] >= found["rss"] > 10_000_000
    assert found["weights"] > 0
    with Generator.load(planned, cache_dtype="int8") as generator:
        each = generator.info()["cache_bytes_per_token"]
    assert found["cache"] == each * (16 + 8 + fresh.LATER)


def test_errors_of_a_fresh_process_arrive() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        fresh.in_fresh_process(int, "x")
    with pytest.raises(SparityError, match="ended early"):
        fresh.in_fresh_process(os._exit, 3)


def test_a_twin_shares_the_weights_and_nothing_else(planned: Path) -> None:
    with (
        Generator.load(planned, threads=2, sparsity=0.4, force=True) as one,
        one.twin(threads=1) as other,
    ):
        assert other.threads == 1
        assert other.loaded.model.packed is one.loaded.model.packed
        assert other.sparsity == 0
        other.sparsity = 0.4
        ids = list(range(5, 25))
        logits = [each.loaded.model.read([6], sparse=True).copy() for each in (one, other)]
        assert np.array_equal(*logits)
        one.loaded.model.read(ids)
        assert len(other.loaded.model.kv_cache) == 1
    with Generator.load(planned) as one:
        assert one.twin().threads == one.threads
        with pytest.raises(OptionError, match="threads"):
            one.twin(threads=0)


@pytest.mark.parametrize("like_text", [True, False])
def test_contexts(planned: Path, like_text: bool) -> None:
    with Generator.load(planned, threads=1) as generator:
        ids = context.text_ids(generator, 70)
        assert len(ids) == 70
        assert context.text_ids(generator, 100_000)[:70] == ids  # the text begins anew
        context.lay_context(generator, ids[:50], 10, like_text=like_text)
        assert generator.loaded.model.kv_cache.ids == ids[:50]
        assert generator.loaded.model.kv_cache.capacity >= 60
        keys = np.asarray(generator.loaded.model.kv_cache.keys[0], dtype=np.float32)[:, :50]
        assert np.isfinite(keys).all()
        assert (np.abs(keys).max(axis=(0, 2)) > 0).all()
        found = time_sequence(generator, ids, later=3)
        assert len(found.later) == 3
        assert generator.loaded.model.kv_cache.ids[:70] == ids


def test_several_answers_are_timed_by_the_first(planned: Path) -> None:
    with Generator.load(planned, threads=1, sparsity=0.4, force=True) as generator:
        found = time_sequence(generator, [5, 6, 7], later=6, settle=4, together=3)
        assert len(found.later) == 6
        alone = time_sequence(generator, [5, 6, 7], later=6, settle=4)
        # Each has a list of active channels of its own, and what is told is their mean.
        assert 0 < alone.active < 1
        assert abs(found.active - alone.active) < 0.05
