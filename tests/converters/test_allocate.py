"""Spreading a budget: against plain search, and the properties that any budget must keep."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.allocate.lagrange import Allocator, Curve
from converters.allocate.price import by_bytes, by_time, speed
from sparity_edge.packed.bundle import BundleLayout
from sparity_edge.packed.layout import Layout, PackedMatrix

RATES = np.linspace(0, 0.95, 20)


def curve(scale: float, power: float = 2.5) -> Curve:
    return Curve(RATES, scale * RATES**power)


def price(piece: str, _: int, densities: Any) -> Any:
    return {"small": 1.0, "large": 4.0, "whole": 5.0}[piece] * densities


def test_a_curve_keeps_its_points() -> None:
    each = curve(0.3)
    assert each.at(RATES) == pytest.approx(each.costs, rel=1e-6, abs=1e-9)
    assert each.at(np.array([0.0]))[0] == 0
    between = each.at(np.array([0.525]))[0]
    assert each.costs[10] < between < each.costs[11]


@pytest.mark.parametrize("budget", [0.9, 0.7, 0.5])
def test_no_plan_of_the_grid_is_cheaper(budget: float) -> None:
    forms = [({"small": curve(0.1), "large": curve(1.0)},), ({"large": curve(0.2)},)]
    found = Allocator(forms, price).within(budget)
    assert found.price <= budget * 9.0
    grid = np.linspace(0, 0.95, 96)
    costs = [
        forms[0][0]["small"].at(grid),
        forms[0][0]["large"].at(grid),
        forms[1][0]["large"].at(grid),
    ]
    kept = 1 - grid
    total = kept[:, None, None] + 4 * kept[None, :, None] + 4 * kept[None, None, :]
    cost = costs[0][:, None, None] + costs[1][None, :, None] + costs[2][None, None, :]
    best = cost[total <= found.price + 1e-9].min()
    assert found.cost <= best * 1.01


def test_cheap_pieces_give_way_first() -> None:
    forms = [({"large": curve(0.01)},), ({"large": curve(1.0)},)]
    rates = [each.get("large", 0.0) for each in Allocator(forms, price).within(0.7).rates]
    assert rates[0] > 2 * rates[1]


@given(st.lists(st.floats(1e-6, 10), min_size=2, max_size=5), st.floats(0.1, 1))
def test_a_smaller_budget_costs_more(scales: list[float], budget: float) -> None:
    forms = [({"small": curve(scale), "large": curve(scale / 2)},) for scale in scales]
    allocator = Allocator(forms, price)
    wide, tight = allocator.within(budget), allocator.within(budget * 0.8)
    assert wide.price <= budget * allocator.dense + 1e-9
    assert tight.cost >= wide.cost - 1e-12
    assert tight.price <= wide.price + 1e-9


def test_a_layer_takes_the_better_form() -> None:
    thin = {"small": curve(1.0), "large": curve(1.0)}
    whole = {"whole": curve(0.01)}
    forms = [(thin, whole), (whole | {"whole": curve(50.0)}, thin)]
    assert Allocator(forms, price).within(0.5).forms == (1, 1)


def test_no_budget_left_gives_the_cheapest_plan() -> None:
    found = Allocator([({"large": curve(1.0)},)], price).within(0.0)
    assert found.rates[0]["large"] == pytest.approx(0.95)


def test_bytes_count_headers_and_folded_matrices() -> None:
    down = Layout("int4", "input", (64, 96), 32, minimum=True)
    up = Layout("int4", "output", (96, 64), 32, minimum=True)
    bundle = BundleLayout(up, down)
    specs = {
        "model.layers.0.mlp.down_proj.weight": down,
        "model.layers.0.mlp.up_down": bundle,
    }
    square = Layout("int8", "output", (64, 64), 32)
    mean = PackedMatrix(square, np.zeros(square.nbytes, np.uint8))
    reading = by_bytes(specs, [mean])
    ends = np.array([1.0, 0.0])
    assert reading("down_proj", 0, ends).tolist() == [
        down.nbytes,
        down.nbytes - 96 * down.row_bytes,
    ]
    assert reading("neurons", 0, ends).tolist() == [
        bundle.nbytes,
        bundle.nbytes - 96 * bundle.row_bytes + square.nbytes,
    ]


def test_time_of_short_rows_falls_less_than_their_bytes() -> None:
    shares = np.linspace(0.05, 1, 20)
    for row in (100, 320, 1000, 9216, 50000):
        found = speed(row, shares)
        assert (np.diff(found) >= 0).all()
        assert 0.4 < found.min() < found[-1] == 1
    assert all(
        (speed(short, shares) <= speed(long, shares) + 0.06).all()
        for short, long in itertools.pairwise((320, 640, 4608, 9216))
    )
    layout = Layout("int8", "input", (576, 1536), 32)
    specs = {"model.layers.0.mlp.down_proj.weight": layout}
    half = np.array([0.5])
    taken = [price("down_proj", 0, half)[0] for price in (by_time(specs), by_bytes(specs))]
    assert taken[0] > 1.2 * taken[1]
