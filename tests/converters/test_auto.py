"""The auto plan on a tiny model: its costs, its thresholds, and what a reader does with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packing import pack_folder
from tiny import TOKENIZER_SIZE

from converters.calibration.fisher import (
    RATES,
    Regression,
    channel_weights,
    dropping_costs,
    layer_costs,
    token_factors,
)
from converters.calibration.gradient import backward
from converters.calibration.gradient_layer import Slopes
from converters.methods import auto, auto_fit
from sparity_edge.model.opening import open_folder, open_packed
from sparity_edge.packed.folder import PackedModel
from sparity_edge.plans.plan import LINEARS, NEURONS, PlanFamily
from sparity_edge.plans.plan_file import add_plan, read_plan

WINDOWS = np.random.default_rng(3).integers(5, TOKENIZER_SIZE, (6, 40))


@pytest.fixture(scope="module")
def packs(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, PackedModel]:
    folder = tmp_path_factory.mktemp("auto")
    return {
        layout: open_packed(pack_folder(checkpoint("llama_gqa"), folder / layout, "f32", layout))
        for layout in ("input", "mixed")
    }


@pytest.fixture(scope="module")
def families(packs: dict[str, PackedModel]) -> dict[str, PlanFamily]:
    return {
        layout: auto.make(packed, WINDOWS, layout, threads=1, notes={"text": "random"})
        for layout, packed in packs.items()
    }


def test_costs_are_those_of_plain_masking() -> None:
    random = np.random.default_rng(0)
    x, gradient = random.normal(size=(2, 50, 30)).astype(np.float32)
    centre = random.normal(size=30).astype(np.float32)
    weights = channel_weights(gradient)
    assert weights.mean() == pytest.approx(1)
    costs = dropping_costs(x, gradient, weights, centre)
    scores = np.abs(x - centre) * weights
    for rate, cost in zip(RATES[1:], costs[1:], strict=True):
        dropped = scores <= np.quantile(scores, rate)
        expected = 0.5 * np.mean((dropped * gradient * (x - centre)).sum(axis=1) ** 2)
        assert cost >= expected * 0.99  # quantiles are known within 0.4 %
    assert cost == pytest.approx(expected, rel=0.3)
    assert costs[0] == 0


def test_gains_guess_which_tokens_are_sensitive() -> None:
    random = np.random.default_rng(1)
    h = random.normal(3, 2, (4000, 20)).astype(np.float32)
    size = np.exp(0.3 * (h[:, 0] - 3) - 0.2 * (h[:, 1] - 3)).astype(np.float32)
    x, gradient = random.normal(size=(2, 4000, 30)).astype(np.float32)
    gradient *= size[:, None]
    gain = Regression(h[:2000]).gain(gradient[:2000])
    factors = token_factors(h[2000:], gain)
    assert np.corrcoef(np.log(factors), np.log(size[2000:]))[0, 1] > 0.95
    assert (abs(np.log(factors)) <= 1 + 1e-6).all()
    rest, slopes, ones = x[2000:], gradient[2000:], np.ones(30, np.float32)
    plain, scaled = (dropping_costs(rest, slopes, ones, None, each) for each in (None, factors))
    assert scaled[10] < 0.9 * plain[10]


def test_an_estimate_is_the_change_of_the_loss(packs: dict[str, PackedModel]) -> None:
    found: dict[int, list[Slopes]] = {}
    backward(packs["input"], WINDOWS, found.__setitem__)
    costs = layer_costs(found[0], neurons=True)
    assert set(costs) == {*LINEARS, NEURONS}
    for each in costs.values():
        assert (np.diff(each.costs) >= 0).all()
        assert each.costs[-1] > 0
    # A bundle holds the same numbers, so it gives the same costs.
    again: dict[int, list[Slopes]] = {}
    backward(packs["mixed"], WINDOWS, again.__setitem__)
    for piece, each in layer_costs(again[0], neurons=True).items():
        assert np.array_equal(each.costs, costs[piece].costs)


@pytest.mark.parametrize("layout", ["input", "mixed"])
def test_thresholds_drop_what_they_promise(families: dict[str, PlanFamily], layout: str) -> None:
    family = families[layout]
    assert family.layout == layout
    assert set(family.tables) == set(auto.FORMS[layout])
    assert (np.diff(family.active) < 0).all()
    assert family.most > 0.5
    evidence = family.notes["evidence"]
    # Where time cannot be saved any more, bytes are, which may cost less.
    losses = np.array([each["kl"] for each in evidence])
    assert (losses[1:] > 0.8 * losses[:-1]).all()
    assert len(family.notes["estimated_speed"]) == len(family.levels)
    # The rows are named by the bytes that they were to save; `active` is what they did save.
    for each in evidence:
        plan = family.at_level(each["sparsity"])
        assert 1 - plan.sparsity == pytest.approx(each["active"], abs=0.02)


def test_it_is_stored_and_read_back(
    packs: dict[str, PackedModel], families: dict[str, PlanFamily]
) -> None:
    for layout, packed in packs.items():
        add_plan(open_folder(packed.path), families[layout])
        read: Any = read_plan(open_folder(packed.path), "auto")
        assert np.array_equal(read.levels, families[layout].levels)
        for piece, table in families[layout].tables.items():
            assert np.array_equal(read.tables[piece], table)


def test_it_is_the_same_every_time(
    packs: dict[str, PackedModel], families: dict[str, PlanFamily]
) -> None:
    again = auto.make(packs["mixed"], WINDOWS, "mixed", threads=2, notes={"text": "random"})
    first = families["mixed"]
    assert first.gains.keys() == first.tables.keys()
    for name in ("tables", "weights", "centres", "gains"):
        for piece, values in getattr(again, name).items():
            assert np.array_equal(values, getattr(first, name)[piece])
    assert again.notes == first.notes


def test_large_models_take_few_gradients() -> None:
    windows = np.arange(8 * 1024).reshape(8, 1024)
    small, large, huge = (
        auto_fit.gradient_windows(windows, parameters)
        for parameters in (106_000_000, 1_310_000_000, 1 << 60)
    )
    assert small.shape == (4, 1024)
    assert [int(row[0]) for row in small] == [0, 2048, 4096, 6144]
    assert large.shape == (2, 524)
    assert huge.shape == (2, auto_fit.LEAST_GRADIENT_TOKENS // 2)
    assert auto_fit.gradient_windows(windows[:1], 1 << 60).shape == (1, 512)
