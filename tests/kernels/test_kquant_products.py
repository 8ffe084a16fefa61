"""Products of K-quants: exact integers, all sizes of rows, the same bits for any threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gguf_files
import numpy as np
import pytest
from builders import as_prompts_round, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from packing import INT2K, INT3K, INT4K, INT6K, IQ4K, random_weights

from converters.numbers.bundle_bytes import pack_bundle
from converters.numbers.layout_bytes import pack_matrix
from sparity_edge.arrays import Floats, padded, rows
from sparity_edge.kernels.active_list import empty_list, full_list, set_channels
from sparity_edge.kernels.prefill.byte_gemm import LEAST_TOKENS
from sparity_edge.kernels.program.machine import ThreadedMachine
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.kernels.reference.unpack import unpack
from sparity_edge.packed.bundle import BundleLayout, PackedBundle
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.progress import silent

REFERENCE = ReferenceMachine()
IN_LISTS = [INT4K, INT6K]  # whose rows may be picked from a list
FORMS = [*IN_LISTS, INT2K, INT3K, IQ4K]
# The number and the scale that make the largest weight.
LARGEST = {INT2K: (3, 15), INT3K: (-4, -32), INT4K: (15, 63), INT6K: (-32, -128), IQ4K: (0, -32)}
SHARD = "model-00001-of-00001.safetensors"
MATRICES = [f"blk.0.{stem}.weight" for stem in gguf_files.BLOCK if "norm" not in stem]
Form = tuple[str, int, bool]


@pytest.fixture(scope="module")
def machines() -> Iterator[list[ThreadedMachine]]:
    made = [ThreadedMachine(threads) for threads in (1, 2, 5)]
    made[0].compile(silent)
    yield made
    for machine in made:
        machine.close()


def packed(form: Form, shape: tuple[int, int], seed: int = 0) -> PackedMatrix:
    layout = Layout(form[0], "output", shape, *form[1:])
    return PackedMatrix(layout, pack_matrix(random_weights(layout, seed), layout))


def bound(x: Floats, weights: Floats) -> Floats:
    """Activations of 16 bits are right to 1.54e-5 of the largest."""
    return 1e-4 + 1.8e-5 * np.abs(x).max() * np.abs(weights).sum(axis=1)


def products(machine: ThreadedMachine, matrix: PackedMatrix, x: Floats, bias: Any) -> Floats:
    """x W^T + bias + 1."""
    out, handle = rows(len(x), matrix.layout.shape[0]), machine.matrix(matrix)
    out[:] = 1
    machine.prepare(lambda ops: ops.linear(x, handle, out, bias, True))(False)
    return out


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokens", [1, 2, 7, 13, LEAST_TOKENS + 3])
@pytest.mark.parametrize(  # blocks of two superblocks and of one, panels of 32 outputs
    "shape", [(1, 256), (33, 2304), (40, 17 * 256), (1537, 768), (64, 8 * 256), (5, 512)]
)
def test_products(
    machines: list[ThreadedMachine], form: Form, tokens: int, shape: tuple[int, int]
) -> None:
    matrix = packed(form, shape)
    x, bias = normal(1, tokens, shape[1]), padded(normal(2, 1, shape[0])[0])
    first, *others = [products(machine, matrix, x, bias) for machine in machines]
    weights = unpack(matrix).astype(np.float64)
    given_x = as_prompts_round(x, matrix.layout)
    expected = given_x @ weights.T + bias + 1
    assert np.all(np.abs(first - expected) <= bound(x, weights))
    assert all(np.array_equal(first, other) for other in others)
    whole = np.lib.stride_tricks.as_strided(first, (tokens, first.strides[0] // 4))
    assert not whole[:, shape[0] :].any()


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(FORMS), st.integers(1, 5), st.sampled_from([1, 3]), st.data())
def test_an_input_meets_its_own_weights(
    machines: list[ThreadedMachine], form: Form, blocks: int, tokens: int, data: st.DataObject
) -> None:
    matrix = packed(form, (data.draw(st.integers(1, 40)), 256 * blocks))
    weights, x = unpack(matrix), rows(tokens, 256 * blocks)
    channels = [data.draw(st.integers(0, 256 * blocks - 1)) for _ in range(tokens)]
    x[range(tokens), channels] = data.draw(st.sampled_from([1.0, -3.0, 1e-20]))
    for decoding in (False, True):
        out, handle = rows(tokens, len(weights)), machines[1].matrix(matrix)
        machines[1].prepare(lambda ops, h=handle, o=out: ops.linear(x, h, o), decoding)(False)
        error = np.abs(out - x[range(tokens), channels][:, None] * weights.T[channels])
        assert error.max() <= 2e-6 * np.abs(x).max() * np.abs(weights).max()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokens", [3, 4, 5])  # the activations of four are more than L1 takes
def test_wide_products_have_the_bits_of_each_token_alone(
    machines: list[ThreadedMachine], form: Form, tokens: int
) -> None:
    matrix, x = packed(form, (33, 17 * 256)), normal(1, tokens, 17 * 256)
    for machine in machines:
        together, handle = rows(tokens, 33), machine.matrix(matrix)
        machine.prepare(lambda ops, h=handle, o=together: ops.linear(x, h, o), True)(False)
        for i in range(tokens):
            out = rows(1, 33)
            machine.prepare(lambda ops, h=handle, o=out, v=x[i : i + 1]: ops.linear(v, h, o))(False)
            np.testing.assert_array_equal(out[0], together[i])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tokens", [1, 8, LEAST_TOKENS])
@pytest.mark.parametrize("value", [1, -1])
def test_the_largest_integers_fit(
    machines: list[ThreadedMachine], form: Form, tokens: int, value: int
) -> None:
    """Sums of integers where every weight, scale and activation is as large as it can be."""
    layout = Layout(form[0], "output", (40, 512), *form[1:])
    weights = random_weights(layout)
    weights.numbers[:], weights.scales[:] = LARGEST[form]
    if weights.minimums is not None:
        weights.minimums[:] = 0
    weights.factors[:] = 1
    matrix = PackedMatrix(layout, pack_matrix(weights, layout))
    x = rows(tokens, 512)
    x[:] = value
    expected = value * unpack(matrix).sum(axis=1)
    for out in products(machines[0], matrix, x, None):
        np.testing.assert_allclose(out - 1, expected, rtol=2e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tokens", [1, 5, LEAST_TOKENS])
@pytest.mark.parametrize("channel", [300, 700])  # of two superblocks, of the one behind them
def test_what_is_no_number_stays_with_its_token(
    machines: list[ThreadedMachine], form: Form, tokens: int, value: float, channel: int
) -> None:
    x = normal(0, tokens, 768)
    x[-1, channel] = value
    out = products(machines[1], packed(form, (40, 768)), x, None)
    assert np.isfinite(out[:-1]).all()
    assert not np.isfinite(out[-1]).any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_extreme_activations(machines: list[ThreadedMachine], form: Form, scale: float) -> None:
    matrix = packed(form, (40, 768))
    for tokens in (1, 7, LEAST_TOKENS):
        x, out = normal(0, tokens, 768), rows(tokens, 40)
        x *= scale
        handle = machines[1].matrix(matrix)
        run = machines[1].prepare(lambda ops, h=handle, x=x, o=out: ops.linear(x, h, o))
        run(False)
        given_x = as_prompts_round(x, matrix.layout)
        expected = given_x @ unpack(matrix).T
        assert np.abs(out - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inputs", [256, 512, 768])
def test_embedding_is_exact(machines: list[ThreadedMachine], form: Form, inputs: int) -> None:
    matrix, ids = packed(form, (77, inputs)), np.array([76, 0, 5])
    out, handle = rows(3, inputs), machines[1].matrix(matrix)
    machines[1].prepare(lambda ops: ops.embed(ids, handle, out))(False)
    np.testing.assert_array_equal(out, unpack(matrix)[ids])


def test_formats_side_by_side_share_activations(machines: list[ThreadedMachine]) -> None:
    """q, k and v of one x: in superblocks and not, and x changes afterwards."""
    matrices = [packed(INT4K, (50, 256)), packed(INT6K, (30, 256))]
    plain = Layout("int4", "output", (40, 256), 32, True)
    matrices.append(PackedMatrix(plain, pack_matrix(random_weights(plain), plain)))
    x, again = normal(1, 1, 256), rows(1, 256)
    before = np.array(x)
    outs = [rows(1, each.layout.shape[0]) for each in matrices]
    handles = [machines[1].matrix(each) for each in matrices]

    def forward(ops: Any) -> None:
        with ops.together():
            for handle, out in zip(handles, outs):
                ops.linear(x, handle, out)
        ops.silu_mul(x, x, x)
        ops.linear(x, handles[0], again)

    again = rows(1, 50)
    machines[1].prepare(forward)(False)
    for matrix, out in zip(matrices, outs):
        weights = unpack(matrix)
        assert np.all(np.abs(out - before @ weights.T) <= bound(before, weights))
    weights = unpack(matrices[0])
    assert np.all(np.abs(again - x @ weights.T) <= bound(x, weights))


@pytest.mark.parametrize("form", IN_LISTS)
def test_outputs_of_a_list(machines: list[ThreadedMachine], form: Form) -> None:
    matrix, x, out = packed(form, (301, 768)), normal(1, 1, 768), rows(1, 301)
    active, handle = empty_list(301), machines[1].matrix(matrix)
    wanted = np.flatnonzero(np.random.default_rng(0).random(301) < 0.4)
    set_channels(active, wanted)
    machines[1].prepare(lambda ops: ops.vmmsp(x, handle, active, out))(False)
    weights = unpack(matrix)
    assert np.all(np.abs(out[0] - x[0] @ weights.T) <= bound(x, weights), where=_mask(wanted, 301))
    assert not np.delete(out[0], wanted).any()


def _mask(wanted: Any, size: int) -> Any:
    mask = np.zeros(size, dtype=bool)
    mask[wanted] = True
    return mask


def test_up_rows_of_a_bundle(machines: list[ThreadedMachine]) -> None:
    up, down = (
        Layout("int4k", "output", (300, 512), 32, True),
        Layout("int8", "input", (512, 300), 32),
    )
    layout = BundleLayout(up, down)
    weights = random_weights(up, 1), random_weights(down, 2)
    bundle = PackedBundle(layout, pack_bundle(*weights, layout))
    x, gate = normal(1, 1, 512), normal(2, 1, 300)
    results = []
    for machine in (machines[1], REFERENCE):
        out, handle = rows(1, 512), machine.bundle(bundle)
        active = full_list(300)
        machine.prepare(lambda ops, h=handle, o=out, a=active: ops.ffn(x, gate, h, a, o))(False)
        results.append(np.array(out))
    middle = np.abs(gate[0]) * bound(x, weights[0].dequantize())
    allowed = np.abs(weights[1].dequantize()) @ middle + 1e-5 * np.abs(results[1]).max()
    assert np.all(np.abs(results[0] - results[1]) <= allowed)
