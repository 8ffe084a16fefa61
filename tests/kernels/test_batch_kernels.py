"""Products of several tokens: the bits of each token alone, and the twins' numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from builders import matrix_of, normal, packed
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import layouts

from sparity_edge.arrays import Floats, padded, rows
from sparity_edge.kernels.operations import Operations
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.kernels.sparse_vector import Selector
from sparity_edge.packed.bundle import join, split
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.progress import silent

REFERENCE = ReferenceMachine()
FORMS = [("f32", 0, False), ("bf16", 0, False), ("int8", 32, False), ("int4", 64, True)]
tokens = st.integers(2, 9)
seeds = st.integers(0, 99)


@pytest.fixture(scope="module", params=[1, 2, 5])
def machine(request: pytest.FixtureRequest) -> Iterator[ThreadedMachine]:
    machine = ThreadedMachine(request.param)
    for orientation in ("output", "input"):
        machine.matrix(packed(Layout("f32", orientation, (1, 1))))
    machine.compile(silent)
    machine.compile_batches(silent)  # before hypothesis looks at the clock
    yield machine
    machine.close()


def linear(
    machine: ThreadedMachine, matrix: PackedMatrix, x: Floats, out: Floats, *more: object
) -> Floats:
    """One product, its tokens decoding."""
    handle = machine.matrix(matrix)
    machine.prepare(lambda ops: ops.linear(x, handle, out, *more), decoding=True)(False)
    return out


@settings(max_examples=60)
@given(layouts(), tokens, st.booleans(), st.booleans(), seeds)
def test_dense_products_have_the_bits_of_each_token_alone(
    machine: ThreadedMachine, layout: Layout, count: int, bias: bool, accumulate: bool, seed: int
) -> None:
    matrix = packed(layout, seed)
    outputs, inputs = layout.shape
    x = normal(seed, count, inputs)
    offset = padded(normal(seed + 2, 1, outputs)[0]) if bias else None
    together = linear(machine, matrix, x, normal(1, count, outputs), offset, accumulate)
    alone = normal(1, count, outputs)
    for token in range(count):
        own = slice(token, token + 1)
        linear(machine, matrix, x[own], alone[own], offset, accumulate)
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("orientation", ["output", "input"])
@pytest.mark.parametrize("dtype", ["f32", "int8", "int4"])
def test_what_is_no_number_stays_with_its_token(
    machine: ThreadedMachine, dtype: str, orientation: str, value: float
) -> None:
    layout = Layout(dtype, orientation, (40, 70), 0 if dtype == "f32" else 32)
    x = normal(0, 3, 70)
    x[1, 3] = value
    out = linear(machine, packed(layout), x, rows(3, 40))
    assert np.isfinite(out[[0, 2]]).all()
    assert not np.isfinite(out[1]).any()


def masked(seed: int, count: int, size: int, density: float) -> tuple[Floats, Selector]:
    """Rows, and a selector that leaves about so many of their channels."""
    x = normal(seed, count, size)
    thresholds = padded(np.full(size, np.quantile(np.abs(x), 1 - density)))
    centre = padded(normal(seed + 9, 1, size)[0] / 8) if seed % 2 else None
    return x, Selector(thresholds, None, None, centre)


@settings(max_examples=40)
@given(
    st.sampled_from(FORMS),
    st.tuples(st.integers(1, 200), st.integers(1, 300)),
    tokens,
    st.sampled_from([0.02, 0.2, 0.5, 1.0]),
    seeds,
)
def test_sparse_products_equal_masking(
    machine: ThreadedMachine,
    form: tuple[str, int, bool],
    shape: tuple[int, int],
    count: int,
    density: float,
    seed: int,
) -> None:
    matrix = matrix_of(form, "input", shape, seed)
    x, selector = masked(seed, count, shape[1], density)
    results, counts = [], []
    for each in (machine, REFERENCE):
        out, handle = rows(count, shape[0]), each.matrix(matrix)
        listed = np.zeros(1, dtype=np.int64)

        def forward(ops: Operations, out=out, handle=handle, listed=listed) -> None:
            sparse = ops.sparsify(x, selector)
            ops.linear(sparse, handle, out)
            ops.tally([sparse], listed)

        each.prepare(forward, decoding=True)(False)
        results.append(out)
        counts.append(int(listed[0]))
    weights = np.abs(REFERENCE.matrix(matrix)).sum(axis=1)
    allowed = 1e-5 + 1.7e-5 * np.abs(x).max() * weights
    assert np.all(np.abs(results[0] - results[1]) <= allowed)
    assert counts[0] == counts[1]
    handle, alone = machine.matrix(matrix), rows(count, shape[0])
    for token in range(count):
        own = slice(token, token + 1)

        def of_one(ops: Operations, own=own) -> None:
            ops.linear(ops.sparsify(x[own], selector), handle, alone[own])

        machine.prepare(of_one, decoding=True)(False)
    np.testing.assert_array_equal(results[0], alone)


@settings(max_examples=40)
@given(
    st.sampled_from(FORMS),
    st.integers(1, 150),
    st.integers(1, 200),
    tokens,
    st.sampled_from([0.05, 0.4, None]),
    seeds,
)
def test_neurons_equal_masking(
    machine: ThreadedMachine,
    form: tuple[str, int, bool],
    hidden: int,
    neurons: int,
    count: int,
    density: float | None,
    seed: int,
) -> None:
    up = matrix_of(form, "output", (neurons, hidden), seed)
    bundle = join(up, matrix_of(form, "input", (hidden, neurons), seed + 1))
    x = normal(seed + 2, count, hidden)
    gate, selector = masked(seed + 3, count, neurons, density or 1.0)
    results = []
    for each in (machine, REFERENCE):
        out, handle = normal(seed + 4, count, hidden), each.bundle(bundle)
        middle = [rows(count, neurons) for _ in range(2)]

        def forward(ops: Operations, out=out, handle=handle, middle=middle) -> None:
            chosen = gate if density is None else ops.sparsify(gate, selector)
            ops.neurons(x, chosen, handle, *middle, out)

        each.prepare(forward, decoding=True)(False)
        results.append(out)
    # Activations of 16 bits: x is wrong by so much, and so is what goes into down.
    rows_up, rows_down = (np.abs(REFERENCE.matrix(each)) for each in split(bundle))
    wrong = 1e-5 + 1.7e-5 * np.abs(x).max() * rows_up.sum(axis=1)
    values = np.abs(gate).max(axis=0) * (wrong + np.abs(x @ REFERENCE.matrix(up).T).max(axis=0))
    wrong = np.abs(gate).max(axis=0) * wrong + 1.7e-5 * values.max()
    assert np.all(np.abs(results[0] - results[1]) <= 1e-4 + 2 * rows_down @ wrong)
    handle, alone = machine.bundle(bundle), normal(seed + 4, count, hidden)
    for token in range(count):
        own = slice(token, token + 1)

        def of_one(ops: Operations, own=own) -> None:
            chosen = gate[own] if density is None else ops.sparsify(gate[own], selector)
            ops.neurons(x[own], chosen, handle, *(each[own] for each in middle), alone[own])

        machine.prepare(of_one, decoding=True)(False)
    np.testing.assert_array_equal(results[0], alone)
