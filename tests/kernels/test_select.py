"""Selections against their NumPy twins: the very same channels, whatever the values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparity_edge.arrays import Floats, padded, rows
from sparity_edge.kernels.active_list import channels, empty_list, full_list
from sparity_edge.kernels.batch.masks import sparsify_n_of_m
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.kernels.reference.selection import factors
from sparity_edge.kernels.sparse.select import select_n_of_m, select_threshold, select_top
from sparity_edge.kernels.sparse_vector import Selector
from sparity_edge.progress import silent

REFERENCE = ReferenceMachine()


@pytest.fixture(scope="module", params=[1, 2, 5])
def machine(request: pytest.FixtureRequest) -> Iterator[ThreadedMachine]:
    machine = ThreadedMachine(request.param)
    machine.compile(silent)
    for kernel in (select_threshold, select_top, select_n_of_m, sparsify_n_of_m):
        _ = kernel.address  # before hypothesis looks at the clock
    yield machine
    machine.close()


def both(machine: ThreadedMachine, size: int, select: Callable[[Any, Any], None]) -> Any:
    """The channels that kernels and NumPy select."""
    results = []
    for each in (machine, REFERENCE):
        active = empty_list(size)
        each.prepare(lambda ops, active=active: select(ops, active))(False)
        results.append(np.array(channels(active)))
    return results


def assert_same(machine: ThreadedMachine, size: int, select: Callable[[Any, Any], None]) -> Any:
    ours, expected = both(machine, size, select)
    np.testing.assert_array_equal(ours, expected)
    return ours


@st.composite
def activations(draw: st.DrawFn) -> Floats:
    """A row of 1 to 700 numbers: spread, equal in many places, or not all finite."""
    size, seed = draw(st.integers(1, 700)), draw(st.integers(0, 99))
    random = np.random.default_rng(seed)
    values = random.standard_normal(size) * draw(st.sampled_from([1e-40, 1e-3, 1.0, 1e30]))
    kind = draw(st.sampled_from(["spread", "ties", "zeros", "broken"]))
    if kind == "ties":
        values = np.round(random.standard_normal(size))
    elif kind == "zeros":
        values[:] = -0.0
    elif kind == "broken":
        places = random.integers(0, size, 5)
        values[places] = [np.nan, np.inf, -np.inf, 0.0, -np.nan]
    x = rows(1, size)
    x[:] = values
    return x


def vector(size: int, seed: int) -> Floats:
    return padded(np.abs(np.random.default_rng(seed).standard_normal(size)))


@given(activations(), st.booleans(), st.floats(0, 2))
def test_threshold(machine: ThreadedMachine, x: Floats, centred: bool, level: float) -> None:
    size = x.shape[1]
    thresholds, centre = vector(size, 1), vector(size, 2) if centred else None
    thresholds *= np.float32(level)
    select = lambda ops, out: ops.select_threshold(x, thresholds, out, centre)  # noqa: E731
    found = assert_same(machine, size, select)
    assert np.isin(np.flatnonzero(np.isnan(x[0])), found).all()


def test_thresholds_at_the_ends(machine: ThreadedMachine) -> None:
    x = rows(1, 100)
    x[0] = np.linspace(-1, 1, 100)
    for level, count in ((0.0, 100), (np.inf, 0), (1.0, 0)):
        limit = padded(np.full(100, level))
        select = lambda ops, out, t=limit: ops.select_threshold(x, t, out)  # noqa: E731
        assert len(assert_same(machine, 100, select)) == count


@given(
    st.integers(1, 700),
    st.integers(0, 99),
    st.booleans(),
    st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4),
)
def test_scaled_threshold(
    machine: ThreadedMachine, size: int, seed: int, centred: bool, numbers: list[float]
) -> None:
    x, centre = rows(1, size), vector(size, 2) if centred else None
    x[:] = np.random.default_rng(seed).standard_normal(size)
    thresholds, coefficients = vector(size, 1), np.array(numbers, dtype=np.float32)
    value = x if centre is None else x - centre
    limits = (thresholds * factors(value, coefficients))[0]
    assert np.all((limits >= thresholds / 4.001) & (limits <= thresholds * 4.001))
    near = np.abs(np.abs(value[0]) / limits - 1) < 1e-5  # the factors differ in rounding
    for found in both(
        machine,
        size,
        lambda ops, out: ops.select_threshold(x, thresholds, out, centre, coefficients),
    ):
        chosen = np.isin(np.arange(size), found)
        np.testing.assert_array_equal(chosen[~near], (np.abs(value[0]) > limits)[~near])


@pytest.mark.parametrize("exponent", [-3.0, -0.4, 0.0, 0.7, 9.0, np.nan])
def test_threshold_with_a_gain(machine: ThreadedMachine, exponent: float) -> None:
    x, thresholds, exponents = rows(1, 300), vector(300, 1), rows(1, 4)
    x[:] = np.random.default_rng(0).standard_normal(300)
    exponents[0, 2] = exponent
    exponent_of_x = exponents[:, 2:3]
    select = lambda ops, out: ops.select_threshold(x, thresholds, out, None, None, exponent_of_x)  # noqa: E731
    found = assert_same(machine, 300, select)
    expected = ~(np.abs(x[0]) <= thresholds * np.exp(-np.clip(exponent, -1, 1)))
    np.testing.assert_array_equal(found, np.flatnonzero(expected))


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0])
def test_factors_of_strange_vectors(machine: ThreadedMachine, broken: float) -> None:
    x, thresholds = rows(1, 100), padded(np.full(100, 0.5))
    x[:] = broken
    x[0, 3] = 0.0
    coefficients = np.array([0.1, 0.5, 0.3, 0.2], dtype=np.float32)
    select = lambda ops, out: ops.select_threshold(x, thresholds, out, None, coefficients)  # noqa: E731
    assert len(assert_same(machine, 100, select)) == (100 if broken != 0 else 0)


@given(activations(), st.booleans(), st.booleans(), st.floats(0, 1.2), st.integers(-2, 2))
def test_top(
    machine: ThreadedMachine, x: Floats, weighted: bool, centred: bool, share: float, more: int
) -> None:
    size = x.shape[1]
    count = np.array([int(share * size) + more])
    weights = vector(size, 1) if weighted else None
    centre = vector(size, 2) if centred else None
    select = lambda ops, out: ops.select_top(x, count, out, weights, centre)  # noqa: E731
    found = assert_same(machine, size, select)
    assert len(found) == min(size, max(0, count[0]))


def test_the_count_is_read_at_run_time(machine: ThreadedMachine) -> None:
    x, count, active = rows(1, 50), np.array([50]), empty_list(50)
    x[0] = np.arange(50)
    run = machine.prepare(lambda ops: ops.select_top(x, count, active))
    for wanted in (50, 3, 0, 7):
        count[0] = wanted
        run(False)
        np.testing.assert_array_equal(channels(active), np.arange(50 - wanted, 50))


@given(
    activations(),
    st.sampled_from([1, 2, 4, 7, 16, 32, 64]),
    st.integers(0, 64),
    st.booleans(),
    st.booleans(),
)
def test_n_of_m(
    machine: ThreadedMachine, x: Floats, m: int, n: int, weighted: bool, centred: bool
) -> None:
    size, kept = x.shape[1], min(n, m)
    weights = vector(size, 1) if weighted else None
    centre = vector(size, 2) if centred else None
    select = lambda ops, out: ops.select_n_of_m(x, kept, m, out, weights, centre)  # noqa: E731
    found = assert_same(machine, size, select)
    assert np.all(np.bincount(found // m, minlength=1) <= kept)


@given(activations(), st.sampled_from([4, 7, 8, 16, 32]), st.integers(0, 32), st.booleans())
def test_n_of_m_of_several_tokens(
    machine: ThreadedMachine, x: Floats, m: int, n: int, weighted: bool
) -> None:
    size = x.shape[1]
    several = rows(3, size)
    several[:] = np.concatenate([x, x[:, ::-1], -2 * x])
    weights = vector(size, 1) if weighted else None
    kept = np.array([min(n, m)], dtype=np.int64)
    selector = Selector(None, kept, weights, vector(size, 2), neighbours=m)
    found = []
    for each in (machine, REFERENCE):
        made: list[Any] = []
        each.prepare(lambda ops, made=made: made.append(ops.sparsify(several, selector)))(False)
        found.append(made[-1])
    ours, expected = found
    np.testing.assert_array_equal(ours.values, expected.values)
    np.testing.assert_array_equal(ours.counts, expected.counts)
    channels_of = [_listed(machine, row, selector) for row in several]
    for row, listed in zip(expected.values, channels_of, strict=True):
        assert set(np.flatnonzero(row)) <= set(listed)


def _listed(machine: ThreadedMachine, row: Floats, selector: Selector) -> Any:
    """The channels that one token has active."""
    x, made = rows(1, len(row)), []
    x[0] = row
    machine.prepare(lambda ops: made.append(ops.sparsify(x, selector)))(False)
    return channels(made[-1].active)


def test_n_of_m_of_many_chunks(machine: ThreadedMachine) -> None:
    x = rows(1, 14336)
    x[:] = np.random.default_rng(0).standard_normal((1, 14336))
    for n, m in ((2, 4), (16, 32)):
        select = lambda ops, out, n=n, m=m: ops.select_n_of_m(x, n, m, out)  # noqa: E731
        assert len(assert_same(machine, 14336, select)) == 7168


def test_lists() -> None:
    assert channels(empty_list(10)).size == 0
    np.testing.assert_array_equal(channels(full_list(70)), np.arange(70))
