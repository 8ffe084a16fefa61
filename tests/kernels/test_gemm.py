"""Products and attention for many tokens, against their NumPy twins: tiles, panels and blocks.

test_kernels.py covers every format at small sizes; here sizes straddle what the kernels cut
matrices, prompts and contexts into.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from builders import as_prompts_round, normal
from hypothesis import given
from hypothesis import strategies as st
from packing import random_weights

from converters.numbers.layout_bytes import pack_matrix
from sparity_edge.arrays import Floats, padded, rows
from sparity_edge.kernels.prefill import attention as attention_prefill
from sparity_edge.kernels.prefill.attention import KEYS_AT_ONCE
from sparity_edge.kernels.prefill.byte_gemm import LEAST_TOKENS
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.reference.reference import Reference
from sparity_edge.kernels.reference.unpack import unpack
from sparity_edge.kernels.simd.float_tiles import PANEL, TOKENS
from sparity_edge.packed.layout import ORIENTATIONS, Layout, PackedMatrix
from sparity_edge.progress import silent

FORMATS = [("f32", 0, False), ("bf16", 0, False), ("int8", 32, False), ("int8", 128, False)]
FORMATS += [("int4", 32, False), ("int4", 32, True), ("int4", 64, True), ("int4", 128, False)]


@pytest.fixture(scope="module")
def machines() -> Iterator[list[ThreadedMachine]]:
    made = [ThreadedMachine(threads) for threads in (1, 2, 5)]
    made[0].compile(silent)
    yield made
    for machine in made:
        machine.close()


def products(
    machines: list[ThreadedMachine], matrix: PackedMatrix, x: Floats, bias: Floats | None
) -> list[Floats]:
    """x W^T + bias + 1 by each machine."""
    results = []
    for machine in machines:
        out, handle = rows(len(x), matrix.layout.shape[0]), machine.matrix(matrix)
        out[:] = 1
        machine.prepare(lambda ops, h=handle, o=out: ops.linear(x, h, o, bias, True))(False)
        results.append(out)
    return results


def assert_product(machines: list[ThreadedMachine], layout: Layout, tokens: int) -> None:
    """Right to 16 bits of the activations, zero behind the rows, the same for any threads."""
    matrix = PackedMatrix(layout, pack_matrix(random_weights(layout), layout))
    x, bias = normal(1, tokens, layout.shape[1]), padded(normal(2, 1, layout.shape[0])[0])
    first, *others = products(machines, matrix, x, bias)
    weights = unpack(matrix).astype(np.float64)
    expected = as_prompts_round(x, layout) @ weights.T + bias + 1
    allowed = 1e-4 + 1.8e-5 * np.abs(x).max() * np.abs(weights).sum(axis=1)
    assert np.all(np.abs(first - expected) <= allowed)
    whole = np.lib.stride_tricks.as_strided(first, (tokens, first.strides[0] // 4))
    assert not whole[:, layout.shape[0] :].any()
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(("dtype", "group", "minimum"), FORMATS)
def test_sizes_about_panels_and_blocks(
    machines: list[ThreadedMachine], dtype: str, group: int, minimum: bool, orientation: str
) -> None:
    sizes = [
        (PANEL + 1, 257, TOKENS + 1),
        (3 * PANEL, 700, 2 * TOKENS),
        (2 * PANEL + 1, 300, LEAST_TOKENS + 1),
        (2048, 40, 2),  # input-major rows of int4 have a line more, those of int8 with half of them
        (1024, 40, 2),
    ]
    for outputs, inputs, tokens in sizes:
        layout = Layout(dtype, orientation, (outputs, inputs), group, minimum)
        assert_product(machines, layout, tokens)


@given(
    st.sampled_from(FORMATS),
    st.sampled_from(ORIENTATIONS),
    st.integers(1, 70),
    st.integers(1, 600),
    st.integers(2, 20) | st.integers(LEAST_TOKENS, LEAST_TOKENS + 6),
)
def test_any_size(
    machines: list[ThreadedMachine],
    form: tuple[str, int, bool],
    orientation: str,
    outputs: int,
    inputs: int,
    tokens: int,
) -> None:
    dtype, group, minimum = form
    assert_product(machines, Layout(dtype, orientation, (outputs, inputs), group, minimum), tokens)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f32", "int4"])
@pytest.mark.parametrize("tokens", [8, LEAST_TOKENS])
def test_what_is_no_number_stays_with_its_token(
    machines: list[ThreadedMachine], dtype: str, value: float, tokens: int
) -> None:
    layout = Layout(dtype, "output", (40, 300), 32 if dtype == "int4" else 0)
    x = normal(0, tokens, 300)
    x[2, 290] = value
    matrix = PackedMatrix(layout, pack_matrix(random_weights(layout), layout))
    for out in products(machines, matrix, x, None):
        assert not np.isfinite(out[2]).any()
        assert np.isfinite(np.delete(out, 2, axis=0)).all()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_extreme_activations(machines: list[ThreadedMachine], scale: float) -> None:
    layout = Layout("int8", "output", (40, 300), 32)
    matrix = PackedMatrix(layout, pack_matrix(random_weights(layout), layout))
    x, out = normal(0, 7, 300), rows(7, 40)
    x *= scale
    handle = machines[1].matrix(matrix)
    machines[1].prepare(lambda ops: ops.linear(x, handle, out))(False)
    expected = x @ unpack(matrix).T
    assert np.abs(out - expected).max() <= 1e-4 * np.abs(expected).max()


def test_packed_activations_are_not_used_when_stale(machines: list[ThreadedMachine]) -> None:
    """Two inputs of one shape share memory for their packed form, and one of them changes."""
    layout = Layout("int8", "output", (50, 50), 32)
    matrix = PackedMatrix(layout, pack_matrix(random_weights(layout), layout))
    x, y = normal(1, 5, 50), normal(2, 5, 50)
    x *= 0.01
    y *= 0.01
    results = [rows(5, 50) for _ in range(3)]
    handle, expected = machines[1].matrix(matrix), unpack(matrix).T

    def forward(ops: object) -> None:
        linear = ops.linear  # type: ignore[attr-defined]
        linear(x, handle, results[0])
        linear(y, handle, results[1])
        linear(x, handle, x)
        linear(x, handle, results[2])

    before = np.array(x)
    machines[1].prepare(forward)(False)
    for result, given_x in zip(results, [before, y, before @ expected]):
        right = given_x @ expected
        assert np.abs(result - right).max() < 1e-3 * np.abs(right).max()


def attend(
    machine: ThreadedMachine,
    q: Floats,
    cache: npt.NDArray[np.float32],
    start: int,
    window: int | None,
) -> Floats:
    out = rows(*q.shape)
    keys, values = cache
    position = np.array([start])
    run = machine.prepare(lambda ops: ops.attention(q, keys, values, position, window, out))
    run(False)
    return out


@given(
    st.sampled_from([(1, 1), (2, 3), (1, 7)]),
    st.sampled_from([1, 16, 33, 64]),
    st.sampled_from([2, 15, 33, 101]),
    st.sampled_from([0, 1, KEYS_AT_ONCE - 1, KEYS_AT_ONCE, 200]),
    st.sampled_from([None, 1, 40, KEYS_AT_ONCE]),
)
def test_attention(
    machines: list[ThreadedMachine],
    heads: tuple[int, int],
    head_dim: int,
    tokens: int,
    start: int,
    window: int | None,
) -> None:
    kv_heads, share = heads
    q = normal(1, tokens, kv_heads * share * head_dim)
    q *= 3
    shape = (2, kv_heads, start + tokens + 2, head_dim)
    cache = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    cache[:, :, start + tokens :] = np.nan  # nobody may look there
    expected = rows(*q.shape)
    Reference().attention(q, *cache, np.array([start]), window, expected)
    first, *others = [attend(machine, q, cache, start, window) for machine in machines]
    np.testing.assert_allclose(first, expected, rtol=0, atol=1e-5)
    assert all(np.array_equal(first, other) for other in others)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_attention_keeps_the_future_out(
    machines: list[ThreadedMachine], which: int, value: float
) -> None:
    """A key or value that is no number reaches those who see it and nobody else."""
    q = normal(1, 80, 32)
    cache = np.random.default_rng(2).standard_normal((2, 1, 80, 32)).astype(np.float32)
    cache[which, 0, 50] = value
    out = attend(machines[1], q, cache, 0, 20)
    broken = ~np.isfinite(out).all(axis=1)
    assert not broken[:50].any()
    assert not broken[70:].any()
    assert broken[50:70].any() if which == 0 else broken[50:70].all()


def test_chunks_of_attention_do_not_depend_on_threads() -> None:
    assert attention_prefill.step_of(1) == attention_prefill.ROWS
    assert attention_prefill.step_of(1000) == 1
