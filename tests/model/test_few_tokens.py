"""A few tokens of one sequence at a time: the bits that they get one by one."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from plan_families import family

from sparity_edge import Generator
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.model.model import Model
from sparity_edge.model.prefixes.parts import FEW
from sparity_edge.model.recordings import FEW_KEPT
from sparity_edge.packed.folder import PackedModel

CONTEXT = 9
IDS = [5 + 11 * index % 200 for index in range(CONTEXT + FEW)]
CASES = ["llama_gqa", "llama_odd", "mistral_window", "qwen2_plain"]


@pytest.fixture(autouse=True)
def kernels_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is compiled at once."""
    monkeypatch.setattr(ThreadedMachine, "batches_ready", lambda _: True)


def one_by_one(model: Model) -> npt.NDArray[np.float32]:
    """The logits (FEW, vocab_size) behind CONTEXT tokens."""
    model.kv_cache.trim(0)
    model.read(IDS[:CONTEXT])
    return np.stack([model.read([token]).copy() for token in IDS[CONTEXT:]])


def rows_of(model: Model, cache: int) -> list[npt.NDArray[np.generic]]:
    """Copies of so many positions of the model's KV cache."""
    kept = model.kv_cache
    return [each[:, :cache].copy() for each in (*kept.keys, *kept.values)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["f32", "int8", "int4"])
@pytest.mark.parametrize("cache_dtype", ["f32", "bf16", "int8"])
def test_few_tokens_have_the_bits_of_each_alone(
    checkpoint: Callable[[str], Path], dtype: str, cache_dtype: str, threads: int
) -> None:
    options = {"dtype": dtype, "cache_dtype": cache_dtype, "threads": threads}
    for case in CASES:
        with Generator.load(checkpoint(case), **options) as generator:
            model = generator.loaded.model
            expected = one_by_one(model)
            kept = rows_of(model, len(IDS))
            for count in (2, 3, FEW):
                model.kv_cache.trim(CONTEXT)
                drafted = IDS[CONTEXT : CONTEXT + count]
                (logits,) = model.read_all_logits(drafted)
                assert np.array_equal(logits, expected[:count])
                assert model.kv_cache.ids == IDS[: CONTEXT + count]
                for mine, theirs in zip(rows_of(model, CONTEXT + count), kept, strict=True):
                    assert np.array_equal(mine, theirs[:, : CONTEXT + count])
                model.kv_cache.trim(CONTEXT)
                assert np.array_equal(model.read(drafted), expected[count - 1])


def test_a_window_that_slides_past_them(checkpoint: Callable[[str], Path]) -> None:
    with Generator.load(checkpoint("mistral_window"), dtype="f32") as generator:
        model = generator.loaded.model
        model.read(IDS)
        context = len(model.kv_cache)
        expected = [model.read([token]).copy() for token in IDS[:FEW]]
        model.kv_cache.trim(context)
        (logits,) = model.read_all_logits(IDS[:FEW])
        assert np.array_equal(logits, np.stack(expected))


def test_a_cache_of_ones_own_and_room_that_grows(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sparity_edge.model.kv_cache.FIRST_CAPACITY", CONTEXT)
    monkeypatch.setattr("sparity_edge.model.kv_cache.STEP", 2)
    with Generator.load(checkpoint("llama_gqa"), dtype="f32", threads=2) as generator:
        model = generator.loaded.model
        expected = one_by_one(model)
        other = model.new_kv_cache()
        model.read(IDS[:CONTEXT], cache=other)
        for start in (0, 3):
            logits = model.read(IDS[CONTEXT + start :][:3], cache=other)
            assert np.array_equal(logits, expected[start + 2])
        gone = weakref.ref(other)
        del other
        assert gone() is None  # no recording keeps it


def test_only_the_latest_recordings_are_kept(checkpoint: Callable[[str], Path]) -> None:
    with Generator.load(checkpoint("llama_gqa"), dtype="f32") as generator:
        model = generator.loaded.model
        model.read([5])
        for count in (*range(2, FEW + 1), 2, 3):
            model.read(IDS[:count])
        few = [key for key in model._passes if key.runs]
        assert [key.rows for key in few] == [*range(2, FEW + 1), 2, 3][-FEW_KEPT:]
        assert len(model._passes) == FEW_KEPT + 1


def test_without_their_kernels_they_are_read_one_by_one(
    checkpoint: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Generator.load(checkpoint("llama_gqa"), dtype="int4", threads=2) as generator:
        model = generator.loaded.model
        expected = one_by_one(model)
        begun: list[bool] = []
        machine, model._read_one_by_one = model.machine, False
        monkeypatch.setattr(machine, "batches_ready", lambda: False)
        monkeypatch.setattr(machine, "compile_batches_behind", lambda: begun.append(True))
        for times in range(2):  # compiling begins when they are read again
            model.kv_cache.trim(CONTEXT)
            (logits,) = model.read_all_logits(IDS[CONTEXT:])
            assert np.array_equal(logits, expected)
            assert model.kv_cache.ids == IDS
            assert len(begun) == times
        model.kv_cache.trim(CONTEXT)
        assert np.array_equal(model.read(IDS[CONTEXT:]), expected[-1])
        assert not any(key.runs and key.rows == FEW for key in model._passes)


@pytest.mark.parametrize("layout", ["neurons", "mixed", "input"])
def test_a_plan_applies_to_few_tokens(pack: Callable[..., PackedModel], layout: str) -> None:
    packed = pack(layout, "f32")
    model = Model(packed, ThreadedMachine(2), 64, "f32")
    model.set_plan(family(packed, layout).at_level(0.6))
    model.read(IDS[:CONTEXT])
    drafted = IDS[CONTEXT:][:3]
    expected = np.stack([model.read([token], sparse=True).copy() for token in drafted])
    model.kv_cache.trim(CONTEXT)
    (logits,) = model.read_all_logits(drafted, sparse=True)
    np.testing.assert_array_equal(logits, expected)
    assert 0 < model.active_weight_fraction < 1
    model.close()
