"""Spreading a budget: against plain search, and the properties that any budget must keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.allocate.curves import (
    KERNELS,
    MEASURED,
    OTHER,
    Curves,
    cpu_class,
    curves_here,
    shipped,
)
from converters.allocate.lagrange import Allocator, Curve
from converters.allocate.price import by_bytes, by_time, dense_bytes
from sparity_edge.packed.bundle import BundleLayout
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.system.folders import curves_root

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


def curves(first: float = 1000, each: float = 1.0) -> Curves:
    """Rows of 100 bytes gain nothing below a density of 0.5, long ones almost all."""
    rows = {"100": [0.9, 1.2, 1.3], "10000": [0.1, 0.5, 1.0]}
    content = {"densities": [0.1, 0.5, 1.0], "selection": [first, each], "spvmm": rows, "ffn": rows}
    return Curves.parse(content, "test")


def test_time_by_curves() -> None:
    found = curves().ratio("spvmm", 1000, np.array([0.1, 0.3, 1.0]))
    assert found == pytest.approx([0.5, 0.675, 1.15])
    assert curves().ratio("ffn", 50, np.array([1.0])) == pytest.approx([1.3])
    layout = Layout("int8", "input", (576, 1536), 32)
    specs = {"model.layers.0.mlp.down_proj.weight": layout}
    price = by_time(specs, (), curves())
    whole, half = price("down_proj", 0, np.array([1.0, 0.5]))
    ratios = curves().ratio("spvmm", layout.row_bytes, np.array([1.0, 0.5]))
    assert whole == pytest.approx(layout.dense_nbytes * ratios[0])
    assert half == pytest.approx(layout.dense_nbytes * ratios[1] + 1000 + 1536)
    assert dense_bytes(specs, ("down_proj",), 1) == layout.dense_nbytes


def test_a_piece_whose_skipping_saves_no_time_is_left_whole() -> None:
    layout = Layout("int8", "input", (576, 1536), 32)
    specs = {"model.layers.0.mlp.down_proj.weight": layout}
    pieces = [({"down_proj": curve(1.0)},)]
    dear = Allocator(pieces, by_time(specs, (), curves(first=1e9)))
    cheap = Allocator(pieces, by_time(specs, (), curves(first=0)))
    for budget in (0.9, 0.5, 0.1):
        assert not dear.within(budget).rates[0]
        assert cheap.within(budget).rates[0]


@pytest.mark.parametrize(
    "change",
    [
        {"densities": [0.1, 0.5]}, {"densities": [0.5, 0.1, 1.0]}, {"spvmm": {}},
        {"ffn": {"a": []}}, {"ffn": {"100": [1.0, 1.0]}}, {"ffn": {"100": [0.0, 1.0, 1.0]}},
        {"selection": [1]}, {"ffn": {"0": [1.0, 1.0, 1.0]}}, {"spvmm": None},
    ],
)  # fmt: skip
def test_damaged_curves_are_refused(change: dict[str, Any]) -> None:
    rows = {"100": [0.9, 1.2, 1.3]}
    content = {"densities": [0.1, 0.5, 1.0], "selection": [0, 1], "spvmm": rows, "ffn": rows}
    Curves.parse(content, "test")
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        Curves.parse({**content, **change}, "test")


def test_curves_of_this_machine_are_used_once_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARITY_EDGE_CACHE", str(tmp_path))
    name = cpu_class()
    shipped_one = curves_here()
    assert shipped_one.name == name
    curves_root().mkdir()
    file = curves_root() / f"{name}.json"
    for damage in (b"", b"[]", b"{}", b'{"densities": 3}'):
        file.write_bytes(damage)
        assert curves_here().name == name
    rows = {"100": [0.9, 1.2, 1.3]}
    content = {"densities": [0.1, 0.5, 1.0], "selection": [0, 1], "spvmm": rows, "ffn": rows}
    file.write_text(json.dumps(content))
    assert curves_here().name == f"this machine ({name})"
    for each in (*MEASURED, OTHER):
        assert shipped(each).densities[-1] == 1


def test_on_an_unknown_cpu_skipping_has_to_pay_more() -> None:
    other = shipped(OTHER)
    for known in map(shipped, MEASURED):
        for kernel in KERNELS:
            sizes = known.rows[kernel]
            for size in sizes:
                least = known.ratio(kernel, int(size), known.densities)
                found = other.ratio(kernel, int(size), known.densities)
                assert (found[:-1] > least[:-1]).all()
                assert found[-1] <= least[-1]
        assert other.choosing(500) > known.choosing(500)
