"""Batches with plans: active channels of each equal masking, and first positions are dense."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tiny
from plan_families import family
from tiny_cases import PLANNED

from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.model.model import DENSE_POSITIONS, Model
from sparity_edge.packed.folder import PackedModel

Pack = Callable[[str, str], PackedModel]


def logits_together(model: Model, sequences: list[list[int]], read: int) -> np.ndarray:
    """Logits of the last tokens, (tokens, sequences, vocabulary); the first `read` dense."""
    caches = [model.new_kv_cache() for _ in sequences]
    for index, cache in enumerate(caches):
        model.read(sequences[index][: read + index], cache=cache)
    steps = []
    for _ in range(len(sequences[0]) - read - len(sequences)):
        latest = [ids[len(cache)] for ids, cache in zip(sequences, caches, strict=True)]
        steps.append(np.array(model.read_together(latest, caches, True)))
    return np.stack(steps)


@pytest.mark.parametrize("layout", ["input", "ffn", "neurons", "mixed"])
@pytest.mark.parametrize("variant", [{}, {"rule": "top", "centres": True}, {"gains": True}])
@pytest.mark.parametrize("threads", [1, 2])
def test_plans_equal_masking(layout: str, variant: dict, threads: int, pack: Pack) -> None:
    packed, ids = pack(layout, "f32"), tiny.ids_of(PLANNED)
    sequences = [[*ids[index:], *ids[:index]] for index in range(3)]
    plan = family(packed, layout, **variant).at_level(0.6)
    machine = ThreadedMachine(threads)
    models = [Model(packed, each, 64, "f32") for each in (ReferenceMachine(), machine)]
    dense = logits_together(models[1], sequences, DENSE_POSITIONS)
    for model in models:
        model.set_plan(plan)
    wanted, ours = (logits_together(model, sequences, DENSE_POSITIONS) for model in models)
    assert np.abs(ours - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert np.abs(ours - dense).max() > 1e-3 * np.abs(wanted).max(), "nothing was skipped"
    fractions = [model.active_weight_fraction for model in models]
    assert fractions[1] == pytest.approx(fractions[0])
    assert models[1].densities == pytest.approx(models[0].densities)
    for index, own in enumerate(sequences):
        models[1].kv_cache.trim(0)
        models[1].read(own[: DENSE_POSITIONS + index])
        for token, row in zip(own[DENSE_POSITIONS + index :], ours[:, index], strict=False):
            np.testing.assert_array_equal(models[1].read([token], sparse=True), row)
    machine.close()


@pytest.mark.parametrize("layout", ["input", "ffn", "neurons", "mixed"])
@pytest.mark.parametrize("dtype", ["bf16", "int8", "int4"])
def test_plans_of_number_formats(layout: str, dtype: str, pack: Pack) -> None:
    packed, ids = pack(layout, dtype), tiny.ids_of(PLANNED)
    sequences = [[*ids[index:], *ids[:index]] for index in range(3)]
    plan = family(packed, layout, centres=True).at_level(0.6)
    machine = ThreadedMachine(2)
    models = [Model(packed, each, 64, "f32") for each in (ReferenceMachine(), machine)]
    for model in models:
        model.set_plan(plan)
    wanted, ours = (logits_together(model, sequences, DENSE_POSITIONS) for model in models)
    # Activations are rounded to 16 bits, so a few channels near a threshold may change sides.
    assert np.abs(ours - wanted).mean() < 5e-3 * np.abs(wanted).max()
    machine.close()


def test_first_positions_are_dense(pack: Pack) -> None:
    packed, ids = pack("mixed", "f32"), tiny.ids_of(PLANNED)
    model = Model(packed, ThreadedMachine(1), 64, "f32")
    model.set_plan(family(packed, "mixed").at_level(0.6))
    caches = [model.new_kv_cache() for _ in range(3)]
    for length, cache in zip((1, 2, 6), caches, strict=True):
        model.read(ids[:length], cache=cache)
    together = model.read_together([7, 8, 9], caches, True)
    for row, length, token in zip(together, (1, 2, 6), (7, 8, 9), strict=True):
        model.kv_cache.trim(0)
        model.read(ids[:length])
        alone = model.read([token], sparse=True)
        np.testing.assert_array_equal(row, alone)
    model.close()
