"""The FFN over active neurons against its NumPy twin, and bundles of up rows and down columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from builders import Form, bound, bundle_of, formats, matrix_of, normal, seeds, sides, some
from hypothesis import given
from hypothesis import strategies as st
from packing import equal, random_weights

from converters.numbers.bundle_bytes import pack_bundle, unpack_bundle
from sparity_edge.arrays import Floats, padded
from sparity_edge.errors import FormatError
from sparity_edge.kernels.active_list import channels
from sparity_edge.kernels.operations import Operations
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.kernels.sparse_vector import Selector
from sparity_edge.packed.bundle import BundleLayout, PackedBundle, join, split
from sparity_edge.packed.layout import Layout
from sparity_edge.plans.plan import SelectionRule
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


@given(
    formats(), formats(), sides, sides, st.sampled_from(DENSITIES), seeds, st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_ffn(
    machine: ThreadedMachine,
    up: Form,
    down: Form,
    neurons: int,
    hidden: int,
    density: float,
    seed: int,
    centred: bool,
    accumulate: bool,
) -> None:
    packed = bundle_of(up, down, neurons, hidden, seed)
    active, x, gate = (
        some(neurons, density, seed),
        normal(seed, 1, hidden),
        normal(seed + 3, 1, neurons),
    )
    centre = padded(normal(seed + 4, 1, neurons)[0]) if centred else None
    results = []
    for each in (machine, REFERENCE):
        out, handle = normal(seed + 5, 1, hidden), each.bundle(packed)
        each.prepare(
            lambda ops, h=handle, o=out: ops.ffn(x, gate, h, active, o, centre, accumulate)
        )(False)
        results.append(out[0])
    wanted, (up_values, down_values) = channels(active), REFERENCE.bundle(packed)
    factors = gate[:, wanted] if centre is None else gate[:, wanted] - centre[wanted]
    middle = factors * (x @ up_values[wanted].T)
    error = np.abs(factors[0]) * bound(x, up_values[wanted])
    allowed = bound(middle, down_values[:, wanted]) + np.abs(down_values[:, wanted]) @ error
    # Where int4 weights cancel (q = 8) what is left is the rounding of numbers as large as others.
    allowed += 1e-6 * np.abs(results[1]).max()
    assert np.all(np.abs(results[0] - results[1]) <= 2 * allowed)


@given(
    formats(), formats(), sides, sides, st.sampled_from(DENSITIES), seeds, st.integers(1, 4),
    st.booleans(),
)  # fmt: skip
def test_skipping_gates_of_zero_changes_no_bit(
    machine: ThreadedMachine,
    up: Form,
    down: Form,
    neurons: int,
    hidden: int,
    density: float,
    seed: int,
    tokens: int,
    relu_up: bool,
) -> None:
    handle = machine.bundle(bundle_of(up, down, neurons, hidden, seed))
    x, gate = normal(seed, tokens, hidden), normal(seed + 3, tokens, neurons)
    gate[np.random.default_rng(seed).random(gate.shape) >= density] = 0
    zero = Selector.of(SelectionRule("threshold", 0.0), neurons)
    places, results = normal(0, tokens, neurons), []
    for skipped in (False, True):
        out = normal(seed + 5, tokens, hidden)

        def forward(ops: Operations, out: Floats = out, skipped: bool = skipped) -> None:
            active = ops.sparsify(gate, zero) if skipped else gate
            ops.neurons(x, active, handle, places, places, out, relu_up)

        machine.prepare(forward, decoding=True)(False)
        results.append(out)
    assert np.array_equal(*results)


@given(formats(), formats(), sides, sides)
def test_bundles_keep_every_value(up: Form, down: Form, neurons: int, hidden: int) -> None:
    up_layout = Layout(up[0], "output", (neurons, hidden), *up[1:])
    down_layout = Layout(down[0], "input", (hidden, neurons), *down[1:])
    weights = random_weights(up_layout, 1), random_weights(down_layout, 2)
    layout = BundleLayout(up_layout, down_layout)
    packed = PackedBundle(layout, pack_bundle(*weights, layout))
    assert packed.data.nbytes == layout.nbytes
    assert layout.row_bytes % 64 == layout.header_bytes % 64 == packed.data.ctypes.data % 64 == 0
    assert all(equal(*pair) for pair in zip(unpack_bundle(packed), weights))
    again = join(*split(packed))
    assert np.array_equal(again.data, packed.data)


def test_bundles_of_what_does_not_fit_are_refused() -> None:
    with pytest.raises(FormatError, match="40 neurons and down 41"):
        BundleLayout(Layout("f32", "output", (40, 8)), Layout("f32", "input", (8, 41)))
    with pytest.raises(FormatError, match="by outputs"):
        BundleLayout(Layout("f32", "input", (40, 8)), Layout("f32", "input", (8, 40)))
