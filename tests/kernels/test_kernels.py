"""Every kernel against its NumPy twin: formats, odd sizes, extreme values, numbers of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from builders import bound, filled, normal, packed
from hypothesis import given
from hypothesis import strategies as st
from packing import layouts

from sparity_edge.arrays import Floats, padded, rows
from sparity_edge.choices import KV_DTYPES
from sparity_edge.kernels.kv_format import GROUP, LEAST, floats
from sparity_edge.kernels.machines import Machine
from sparity_edge.kernels.operations import HeadNorm, Operations
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.packed.layout import Layout
from sparity_edge.progress import silent

REFERENCE = ReferenceMachine()
Results = tuple[Floats, ...]


@pytest.fixture(scope="module", params=[1, 2, 5])
def machine(request: pytest.FixtureRequest) -> Iterator[ThreadedMachine]:
    machine = ThreadedMachine(request.param)
    for orientation in ("output", "input"):
        machine.matrix(packed(Layout("f32", orientation, (1, 1))))
    for dtype in ("int8", "int4"):
        machine.matrix(packed(Layout(dtype, "output", (1, 1), 32)))
    machine.compile(silent)  # before hypothesis looks at the clock
    yield machine
    machine.close()


def both(
    machine: Machine, build: Callable[[Machine], tuple[Callable[[Operations], None], Results]]
):
    """Run one forward on the kernels and on NumPy; `build` makes the arrays of each afresh."""
    results = []
    for each in (machine, REFERENCE):
        forward, arrays = build(each)
        run = each.prepare(forward)
        run(False)
        results.append([floats(array) for array in arrays])
    return zip(*results)


def assert_close(machine: Machine, build, tolerance: float = 1e-5) -> None:
    for ours, expected in both(machine, build):
        assert ours.shape == expected.shape
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(expected))
        infinite = np.isinf(expected)
        np.testing.assert_array_equal(ours[infinite], expected[infinite])
        finite = np.isfinite(expected)
        largest = np.abs(expected[finite]).max(initial=1e-30)
        assert np.abs(ours[finite] - expected[finite]).max(initial=0) <= tolerance * largest


def linear(layout: Layout, tokens: int, seed: int, *, bias: bool, accumulate: bool):
    matrix = packed(layout, seed)
    outputs, inputs = layout.shape

    def build(machine: Machine):
        x, out = normal(seed, tokens, inputs), normal(seed + 1, tokens, outputs)
        offset = padded(normal(seed + 2, 1, outputs)[0]) if bias else None
        handle = machine.matrix(matrix)
        return lambda ops: ops.linear(x, handle, out, offset, accumulate), (out,)

    return build


def assert_linear(
    machine: Machine, layout: Layout, tokens: int, seed: int, *, bias: bool, accumulate: bool
) -> None:
    """Activations of 16 bits are right to half of 1 / 32512 of the largest: 1.54e-5."""
    build = linear(layout, tokens, seed, bias=bias, accumulate=accumulate)
    [(ours, expected)] = both(machine, build)
    x, weights = normal(seed, tokens, layout.shape[1]), REFERENCE.matrix(packed(layout, seed))
    assert np.all(np.abs(ours - expected) <= bound(x, weights))


@given(layouts(), st.sampled_from([1, 2, 4, 7]), st.booleans(), st.booleans(), st.integers(0, 9))
def test_linear(
    machine: ThreadedMachine, layout: Layout, tokens: int, bias: bool, accumulate: bool, seed: int
) -> None:
    assert_linear(machine, layout, tokens, seed, bias=bias, accumulate=accumulate)


@pytest.mark.parametrize("orientation", ["output", "input"])
@pytest.mark.parametrize("dtype", ["f32", "bf16", "int8", "int4"])
def test_linear_of_many_chunks(machine: ThreadedMachine, dtype: str, orientation: str) -> None:
    group = 32 if dtype.startswith("int") else 0
    layout = Layout(dtype, orientation, (1537, 640), group, dtype == "int4")
    for tokens in (1, 9):
        assert_linear(machine, layout, tokens, 3, bias=False, accumulate=False)


@given(
    st.sampled_from([("int8", False), ("int4", False), ("int4", True)]),
    st.sampled_from([2048, 2080, 8192, 8224, 8300, 9000]),  # about where kernels change
    st.sampled_from([32, 64, 128]),
    st.integers(1, 9),
)
def test_linear_of_wide_rows(
    machine: ThreadedMachine, numbers: tuple[str, bool], inputs: int, group: int, outputs: int
) -> None:
    dtype, minimum = numbers
    layout = Layout(dtype, "output", (outputs, inputs), group, minimum)
    assert_linear(machine, layout, 1, outputs, bias=outputs % 2 == 0, accumulate=outputs % 3 == 0)


@given(layouts().filter(lambda layout: layout.orientation == "output"), st.integers(1, 5))
def test_embed(machine: ThreadedMachine, layout: Layout, tokens: int) -> None:
    matrix = packed(layout)
    ids = np.random.default_rng(0).integers(0, layout.shape[0], tokens)

    def build(machine: Machine):
        out, handle = rows(tokens, layout.shape[1]), machine.matrix(matrix)
        return lambda ops: ops.embed(ids, handle, out), (out,)

    assert_close(machine, build, 1e-6)


@given(st.integers(1, 5), st.integers(1, 700), st.sampled_from([1e-3, 1.0, 1e4]))
def test_rmsnorm(machine: ThreadedMachine, tokens: int, size: int, scale: float) -> None:
    def build(_machine: Machine):
        x, out = normal(1, tokens, size, scale), rows(tokens, size)
        weight = padded(normal(2, 1, size)[0])
        return lambda ops: ops.rmsnorm(x, weight, 1e-5, out), (out,)

    assert_close(machine, build)


def test_rmsnorm_of_zeros(machine: ThreadedMachine) -> None:
    x, out = rows(1, 50), rows(1, 50)
    machine.prepare(lambda ops: ops.rmsnorm(x, padded(np.ones(50)), 1e-5, out))(False)
    assert not out.any()


@given(st.integers(1, 4), st.integers(1, 5000), st.sampled_from([1.0, 30.0, 1e4]))
def test_silu_mul(machine: ThreadedMachine, tokens: int, width: int, scale: float) -> None:
    def build(_machine: Machine):
        gate, up = normal(1, tokens, width, scale), normal(2, tokens, width)
        return lambda ops: ops.silu_mul(gate, up, gate), (gate,)

    assert_close(machine, build)


def test_silu_at_the_ends(machine: ThreadedMachine) -> None:
    gate, up = rows(1, 6), rows(1, 6)
    gate[0] = [-np.inf, -1e30, -90, 90, np.inf, np.nan]
    up[:] = 1
    machine.prepare(lambda ops: ops.silu_mul(gate, up, gate))(False)
    np.testing.assert_allclose(gate[0, 1:5], [0, 0, 90, np.inf], atol=1e-30)
    assert np.isnan(gate[0, [0, 5]]).all()  # -inf / inf, as IEEE has it


@given(
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 40),
    st.integers(0, 30),
    st.sampled_from(KV_DTYPES),
    st.booleans(),
)
def test_rope_and_append(
    machine: ThreadedMachine,
    tokens: int,
    heads: int,
    half: int,
    start: int,
    dtype: str,
    normed: bool,
) -> None:
    head_dim = 2 * half
    norm = HeadNorm(padded(normal(5, 1, head_dim)[0]), 1e-5) if normed else None

    def build(_machine: Machine):
        x, k, v = (normal(seed, tokens, heads * head_dim) for seed in (1, 2, 3))
        table = np.ascontiguousarray(normal(4, 40, head_dim))
        keys, values = (filled(np.zeros((heads, 40, head_dim)), dtype) for _ in range(2))
        position = np.array([start])

        def forward(ops: Operations) -> None:
            ops.rope(x, table, position, heads, x, norm)
            ops.append(k, v, table, position, keys, values, norm)

        return forward, (x, keys, values)

    # The last bit of a rotated key may fall on the other side of a rounding.
    assert_close(machine, build, {"f32": 1e-5, "bf16": 2**-7, "int8": 1.01 / 127}[dtype])


@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 40),
    st.sampled_from([1, 2, 17]),
    st.integers(0, 700),
    st.sampled_from([None, 1, 5, 256, 300]),
    st.sampled_from(KV_DTYPES),
)
def test_attention(
    machine: ThreadedMachine,
    kv_heads: int,
    share: int,
    head_dim: int,
    tokens: int,
    start: int,
    window: int | None,
    dtype: str,
) -> None:
    def build(_machine: Machine):
        q, out = (
            normal(1, tokens, kv_heads * share * head_dim, 3),
            rows(tokens, kv_heads * share * head_dim),
        )
        random = np.random.default_rng(2)
        shape = (2, kv_heads, start + tokens + 3, head_dim)
        keys, values = (filled(each, dtype) for each in random.standard_normal(shape))
        position = np.array([start])
        return lambda ops: ops.attention(q, keys, values, position, window, out), (out,)

    # A mean of values that cancel is as right as the values are large, some 4 here.
    [(ours, expected)] = both(machine, build)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", KV_DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_attention_hands_on_what_is_no_number(
    machine: ThreadedMachine, dtype: str, value: float
) -> None:
    """What `append` writes in place of a number is none when attention reads it."""
    k, v, out = normal(1, 40, 32), normal(2, 40, 32), rows(1, 32)
    v[7] = value
    table = np.ascontiguousarray(normal(4, 40, 32))
    keys, values = (filled(np.zeros((1, 40, 32)), dtype) for _ in range(2))

    def forward(ops: Operations) -> None:
        ops.append(k, v, table, np.array([0]), keys, values)
        ops.attention(normal(3, 1, 32), keys, values, np.array([39]), None, out)

    machine.prepare(forward)(False)
    assert not np.isfinite(out).any()


@given(st.integers(1, 70), st.integers(-44, 37), st.integers(0, 2**32))
def test_int8_rows_are_as_near_as_they_can_be(head_dim: int, exponent: int, seed: int) -> None:
    values = 10.0**exponent * np.random.default_rng(seed).standard_normal((1, 3, head_dim))
    row = filled(values, "int8")
    for start in range(0, head_dim, GROUP):
        part = values[..., start : start + GROUP].astype(np.float32)
        error = np.abs(floats(row)[..., start : start + GROUP] - part).max(axis=-1)
        assert (error <= np.abs(part).max(axis=-1) / 253 + LEAST).all()
