"""Screened products: the outputs that are computed, and what stands in the place of the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from builders import Form, lanes
from hypothesis import given
from hypothesis import strategies as st
from packing import INT8

from converters.numbers.layout_bytes import pack_matrix
from converters.numbers.quantize import quantize
from sparity_edge.arrays import Bytes, Floats, rows
from sparity_edge.kernels.active_list import channels
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.kernels.reference.unpack import unpack_lanes
from sparity_edge.kernels.screen import PROBES, Candidates, error_bytes
from sparity_edge.packed.lane_rows import LaneRows
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.progress import silent

REFERENCE = ReferenceMachine()
KEPT, INPUTS = 64, 96


@pytest.fixture(scope="module")
def machines() -> Iterator[list[ThreadedMachine]]:
    made = [ThreadedMachine(threads) for threads in (1, 3)]
    for machine in made:
        machine.screen(*_screen(_weights(300, 0)))
        machine.matrix(_packed(_weights(300, 0), INT8))
        machine.compile(silent)  # before hypothesis looks at the clock
    yield made
    for machine in made:
        machine.close()


def _packed(weights: Floats, form: Form) -> PackedMatrix:
    layout = Layout(form[0], "output", weights.shape, form[1], form[2])
    return PackedMatrix(layout, pack_matrix(quantize(weights, form[0], form[1]), layout))


def _weights(outputs: int, seed: int) -> Floats:
    """Rows whose last coordinates hardly count."""
    weights = np.random.default_rng(seed).standard_normal((outputs, INPUTS))
    weights[:, KEPT:] *= 0.1
    return weights.astype(np.float32)


def _screen(weights: Floats) -> tuple[PackedMatrix, LaneRows, Bytes]:
    """The first coordinates, and the length of what is missing of each row."""
    projection, coarse = np.eye(KEPT, INPUTS, dtype=np.float32), lanes(weights[:, :KEPT])
    missing = weights.copy()
    missing[:, :KEPT] -= unpack_lanes(coarse)
    return _packed(projection, INT8), coarse, error_bytes(np.linalg.norm(missing, axis=1))


def _run(machine: Any, weights: Floats, x: Floats, count: int, required: list[int]) -> Any:
    """The result, the outputs that were computed, and all outputs."""
    matrix, screen = machine.matrix(_packed(weights, INT8)), machine.screen(*_screen(weights))
    out, whole, asked = rows(1, len(weights)), rows(1, len(weights)), Candidates(len(weights), KEPT)
    asked.ask(count, np.array(required, dtype=np.int64))

    def forward(ops: Any) -> None:
        ops.screened(x, matrix, screen, asked, out)
        ops.linear(x, matrix, whole)

    machine.prepare(forward)(False)
    return out[0].copy(), channels(asked.found).copy(), whole[0].copy()


def _activations(seed: int) -> Floats:
    x = rows(1, INPUTS)
    x[:] = np.random.default_rng(seed).standard_normal(INPUTS)
    return x


@given(
    st.integers(1, 900), st.integers(0, 50), st.sampled_from([1, 2, 40, 2000]), st.integers(0, 30)
)
def test_what_is_computed_is_exact_and_holds_the_best(
    machines: list[ThreadedMachine], outputs: int, seed: int, count: int, many: int
) -> None:
    weights, x = _weights(outputs, seed), _activations(seed + 1)
    required = sorted(np.random.default_rng(seed).permutation(outputs)[:many].tolist())
    out, found, whole = _run(machines[0], weights, x, count, required)
    assert np.all(np.diff(found) > 0)
    assert {*required} <= {*found.tolist()}
    np.testing.assert_array_equal(out[found], whole[found])  # bit for bit
    free = np.setdiff1d(np.arange(outputs), required)
    best = free[np.argsort(-whole[free], kind="stable")[:count]]
    assert {*best.tolist()} <= {*found.tolist()}
    other = _run(machines[1], weights, x, count, required)
    for mine, yours in zip((out, found, whole), other, strict=True):
        np.testing.assert_array_equal(mine, yours)
    expected = _run(REFERENCE, weights, x, count, required)[1]
    assert len(np.setxor1d(found, expected)) <= 2  # activations are rounded to 16 bits


def test_few_are_computed_where_the_screen_is_good(machines: list[ThreadedMachine]) -> None:
    weights, x = _weights(5000, 1), _activations(2)
    _, found, whole = _run(machines[0], weights, x, 1, [])
    assert whole.argmax() in found
    assert len(found) < 500


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_computed(machines: list[ThreadedMachine], value: float) -> None:
    x = _activations(3)
    x[0, 5] = value
    with np.errstate(invalid="ignore"):
        out, found, _ = _run(machines[0], _weights(700, 1), x, 1, [])
    assert len(found) == 700
    assert not np.isfinite(out).any()


def test_probes_are_outputs_from_the_first_to_the_last() -> None:
    for outputs in (1, 2, PROBES, PROBES + 1, 49152):
        probes = channels(Candidates(outputs, 1).probes)
        assert probes[0] == 0
        assert probes[-1] == outputs - 1
        assert len(probes) == min(PROBES, outputs)
