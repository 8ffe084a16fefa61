"""Products over active channels against their NumPy twins: formats, lists, numbers of threads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from builders import Form, bound, bundle_of, formats, matrix_of, normal, seeds, sides, some
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from sparity_edge.arrays import padded, rows
from sparity_edge.kernels.active_list import (
    channels,
    full_list,
)
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.kernels.sparse.active_rows import boundary
from sparity_edge.kernels.sparse.spvmm import MOST_COLUMNS
from sparity_edge.progress import silent

REFERENCE = ReferenceMachine()
DTYPES = ["f32", "bf16", "int8", "int4"]
DENSITIES = [0.0, 0.02, 0.3, 0.5, 1.0]


@pytest.fixture(scope="module", params=[1, 2, 5])
def machine(request: pytest.FixtureRequest) -> Iterator[ThreadedMachine]:
    machine = ThreadedMachine(request.param)
    machine.matrix(matrix_of(("f32", 0, False), "input", (1, 1), 0))
    machine.compile(silent)  # before hypothesis looks at the clock
    yield machine
    machine.close()


@given(formats(), sides, sides, st.sampled_from(DENSITIES), seeds, st.booleans())
def test_vmmsp(
    machine: ThreadedMachine,
    form: Form,
    outputs: int,
    inputs: int,
    density: float,
    seed: int,
    with_bias: bool,
) -> None:
    packed = matrix_of(form, "output", (outputs, inputs), seed)
    active, x = some(outputs, density, seed), normal(seed, 1, inputs)
    bias = padded(normal(seed + 1, 1, outputs)[0]) if with_bias else None
    results = []
    for each in (machine, REFERENCE):
        out, handle = rows(1, outputs), each.matrix(packed)
        out[:] = 7
        each.prepare(lambda ops, h=handle, o=out: ops.vmmsp(x, h, active, o, bias))(False)
        results.append(out[0])
    weights = REFERENCE.matrix(packed)
    assert np.all(np.abs(results[0] - results[1]) <= bound(x, weights))
    rest = np.setdiff1d(np.arange(outputs), channels(active))
    assert np.all(results[0][rest] == 7)


@given(formats(), sides, sides, st.sampled_from(DENSITIES), seeds, st.booleans(), st.booleans())
def test_spvmm(
    machine: ThreadedMachine,
    form: Form,
    outputs: int,
    inputs: int,
    density: float,
    seed: int,
    with_bias: bool,
    accumulate: bool,
) -> None:
    packed = matrix_of(form, "input", (outputs, inputs), seed)
    active, x = some(inputs, density, seed), normal(seed, 1, inputs)
    bias = padded(normal(seed + 1, 1, outputs)[0]) if with_bias else None
    results = []
    for each in (machine, REFERENCE):
        out, handle = normal(seed + 2, 1, outputs), each.matrix(packed)
        each.prepare(lambda ops, h=handle, o=out: ops.spvmm(x, h, active, [o], [bias], accumulate))(
            False
        )
        results.append(out[0])
    wanted = channels(active)
    weights = REFERENCE.matrix(packed)[:, wanted]
    assert np.all(np.abs(results[0] - results[1]) <= bound(x[:, wanted], weights))


@pytest.mark.parametrize("dtype", DTYPES)
def test_spvmm_of_many_parts(machine: ThreadedMachine, dtype: str) -> None:
    form = (dtype, 32 if dtype.startswith("int") else 0, dtype == "int4")
    packed = matrix_of(form, "input", (1537, 700), 1)
    x = normal(1, 1, 700)
    weights = REFERENCE.matrix(packed)
    for active in (some(700, 0.4, 1), full_list(700)):
        out, wanted = rows(1, 1537), channels(active)
        handle = machine.matrix(packed)
        machine.prepare(lambda ops, h=handle, o=out, a=active: ops.spvmm(x, h, a, [o]))(False)
        exact = weights[:, wanted] @ x[0, wanted]
        assert np.all(np.abs(out[0] - exact) <= bound(x, weights[:, wanted]))


@pytest.mark.parametrize(
    ("dtype", "outputs"), [("f32", 256), ("bf16", 512), ("int8", 1024), ("int4", 2048)]
)
def test_rows_with_a_line_more(machine: ThreadedMachine, dtype: str, outputs: int) -> None:
    form = (dtype, 32 if dtype.startswith("int") else 0, dtype == "int4")
    packed, x = matrix_of(form, "input", (outputs, 70), 1), normal(1, 1, 70)
    assert packed.layout.row_bytes == 1024 + 64
    weights, active = REFERENCE.matrix(packed), some(70, 0.6, 1)
    out, wanted, handle = rows(1, outputs), channels(active), machine.matrix(packed)
    machine.prepare(lambda ops: ops.spvmm(x, handle, active, [out]))(False)
    exact = weights[:, wanted] @ x[0, wanted]
    assert np.all(np.abs(out[0] - exact) <= bound(x, weights[:, wanted]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_spvmm_of_many_panels(machine: ThreadedMachine, dtype: str) -> None:
    form = (dtype, 64 if dtype.startswith("int") else 0, False)
    outputs = 2 * MOST_COLUMNS + 100
    packed, x = matrix_of(form, "input", (outputs, 70), 1), normal(1, 1, 70)
    out, active, handle = rows(1, outputs), some(70, 0.6, 1), machine.matrix(packed)
    machine.prepare(lambda ops: ops.spvmm(x, handle, active, [out]))(False)
    weights, wanted = REFERENCE.matrix(packed), channels(active)
    exact = weights[:, wanted] @ x[0, wanted]
    assert np.all(np.abs(out[0] - exact) <= bound(x, weights[:, wanted]))


@given(st.integers(1, 100), st.integers(1, 100), seeds)
def test_stacked_matrices_share_a_list(
    machine: ThreadedMachine, first: int, second: int, seed: int
) -> None:
    packed = matrix_of(("int8", 32, False), "input", (first + second, 130), seed)
    active, x = some(130, 0.5, seed), normal(seed, 1, 130)
    outs = []
    for each in (machine, REFERENCE):
        pair, handle = [rows(1, first), rows(1, second)], each.matrix(packed)
        each.prepare(lambda ops, h=handle, p=pair: ops.spvmm(x, h, active, p))(False)
        outs.append(np.concatenate(pair, axis=1)[0])
    weights = REFERENCE.matrix(packed)
    assert np.all(np.abs(outs[0] - outs[1]) <= bound(x, weights))


def test_operations_over_lists_may_stand_together(machine: ThreadedMachine) -> None:
    x, active = normal(0, 1, 200), some(200, 0.5, 0)
    packed = [matrix_of(("int8", 32, False), "input", (side, 200), side) for side in (40, 90)]
    outs = [rows(1, 40), rows(1, 90)]

    def forward(ops) -> None:
        with ops.together():
            for matrix, out in zip(packed, outs):
                ops.spvmm(x, machine.matrix(matrix), active, [out])

    machine.prepare(forward)(False)
    wanted = channels(active)
    for matrix, out in zip(packed, outs):
        weights = REFERENCE.matrix(matrix)[:, wanted]
        assert np.all(np.abs(out[0] - weights @ x[0, wanted]) <= bound(x, weights))


# --- edges ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_is_handed_on(machine: ThreadedMachine, dtype: str, value: float) -> None:
    form = (dtype, 32 if dtype.startswith("int") else 0, False)
    packed, bundle = matrix_of(form, "input", (40, 70), 0), bundle_of(form, form, 70, 40, 0)
    x, gate, active = normal(0, 1, 70), normal(1, 1, 70), some(70, 0.5, 0)
    x[0, channels(active)[3]] = gate[0, channels(active)[3]] = value
    out, other = rows(1, 40), rows(1, 40)

    def forward(ops) -> None:
        ops.spvmm(x, machine.matrix(packed), active, [out])
        ops.ffn(normal(2, 1, 40), gate, machine.bundle(bundle), active, other)

    machine.prepare(forward)(False)
    assert not np.isfinite(out).any()
    assert not np.isfinite(other).any()


def test_what_is_left_out_is_not_read(machine: ThreadedMachine) -> None:
    packed = matrix_of(("int8", 32, False), "input", (40, 70), 0)
    x, active, out = normal(0, 1, 70), some(70, 0.5, 0), rows(1, 40)
    x[0, np.setdiff1d(np.arange(70), channels(active))] = np.nan
    machine.prepare(lambda ops: ops.spvmm(x, machine.matrix(packed), active, [out]))(False)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-32, 1e30])
def test_extreme_activations(machine: ThreadedMachine, scale: float) -> None:
    packed = matrix_of(("int4", 32, True), "input", (40, 70), 0)
    x, out = normal(0, 1, 70), rows(1, 40)
    x *= np.float32(scale)
    machine.prepare(lambda ops: ops.spvmm(x, machine.matrix(packed), full_list(70), [out]))(False)
    weights = REFERENCE.matrix(packed)
    assert np.all(np.abs(out[0] - weights @ x[0]) <= bound(x, weights))


@given(st.integers(1, 3000), st.integers(1, 20), st.sampled_from(DENSITIES), seeds)
def test_parts_cover_the_list_and_cut_no_block(
    size: int, parts: int, density: float, seed: int
) -> None:
    active = some(size, density, seed)
    address, wanted = active.ctypes.data, channels(active)
    ends = [_boundary(address, part, parts) for part in range(parts + 1)]
    assert ends[0] == 0
    assert ends[-1] == len(wanted)
    assert ends == sorted(ends)
    for end in ends[1:-1]:
        assert end in (0, len(wanted)) or wanted[end] // 32 != wanted[end - 1] // 32


@njit
def _boundary(address: int, part: int, parts: int) -> int:
    return boundary(address, part, parts)


def test_threads_do_not_change_a_bit() -> None:
    results = []
    packed = matrix_of(("int4", 32, True), "input", (640, 1537), 0)
    bundle = bundle_of(("int8", 32, False), ("int4", 32, True), 1537, 640, 0)
    x, h, gate, active = (
        normal(1, 1, 1537),
        normal(2, 1, 640),
        normal(3, 1, 1537),
        some(1537, 0.4, 1),
    )
    for threads in (1, 2, 5):
        machine = ThreadedMachine(threads)
        out = rows(1, 640)

        def forward(ops, machine=machine, out=out) -> None:
            ops.spvmm(x, machine.matrix(packed), active, [out])
            ops.ffn(h, gate, machine.bundle(bundle), active, out, accumulate=True)

        machine.prepare(forward)(False)
        results.append(np.array(out))
        machine.close()
    assert all(np.array_equal(results[0], each) for each in results)
