"""Error bounds of quantisation, its edge cases, and exact agreement with GGUF's own blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.numbers.layout_bytes import pack_matrix, unpack_matrix
from converters.numbers.quantize import Quantized, quantize, quantize_sixes
from sparity_edge.errors import SourceError
from sparity_edge.packed.layout import GROUPS, Layout

F16_STEP = 2.0**-11  # relative error of rounding to float16


def groups_of(values: npt.NDArray[Any], group: int) -> list[npt.NDArray[Any]]:
    return [values[:, start : start + group] for start in range(0, values.shape[1], group)]


@st.composite
def matrices(draw: st.DrawFn) -> npt.NDArray[np.float32]:
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 300))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    scale = 10.0 ** draw(st.integers(-4, 2))
    offset = draw(st.sampled_from([0.0, 0.5, -30.0]))
    tails = draw(st.sampled_from([1, 3]))  # 3: a few weights far outside
    return ((random.normal(size=shape) ** tails + offset) * scale).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(matrices(), st.sampled_from(GROUPS))
def test_int8_error_is_half_a_step(weights: npt.NDArray[np.float32], group: int) -> None:
    quantized = quantize(weights, "int8", group)
    assert quantized.numbers.shape == weights.shape
    assert quantized.scales.shape == (len(weights), -(-weights.shape[1] // group))
    errors = np.abs(quantized.dequantize() - weights)
    for error, values in zip(groups_of(errors, group), groups_of(weights, group), strict=True):
        largest = np.abs(values).max(axis=1)
        # 2**-24 is the step of float16 below its normal range, where scales are rounded up.
        step = largest / 127 * (1 + 2 * F16_STEP) + 2.0**-24
        bound = step / 2 + largest * F16_STEP + 1e-12
        assert (error.max(axis=1) <= bound).all()


@settings(deadline=None, max_examples=60)
@given(matrices(), st.sampled_from(GROUPS))
def test_int4_is_no_worse_than_plain_rounding(weights: npt.NDArray[np.float32], group: int) -> None:
    quantized = quantize(weights, "int4", group)
    assert quantized.numbers.max() <= 15
    squares = (quantized.dequantize().astype(np.float64) - weights) ** 2
    for square, values in zip(groups_of(squares, group), groups_of(weights, group), strict=True):
        low, high = values.min(axis=1, keepdims=True), values.max(axis=1, keepdims=True)
        step = (high - low) / 15
        plain = np.rint((values - low) / np.maximum(step, 1e-30)) * step + low
        # What storing scale and minimum as float16 may add to each weight.
        rounding = (high - low + np.abs(low).clip(np.abs(high))) * F16_STEP * 1.5 + 2.0**-24 * 16
        best = np.sqrt(((plain - values).astype(np.float64) ** 2).mean(axis=1))
        assert (np.sqrt(square.mean(axis=1)) <= best * 1.001 + rounding[:, 0]).all()


@pytest.mark.parametrize(("group", "gain"), [(32, 0.95), (64, 0.94), (128, 0.93)])
def test_the_int4_search_pays(group: int, gain: float) -> None:
    weights = np.random.default_rng(0).normal(size=(64, 1024)).astype(np.float32)
    found = ((quantize(weights, "int4", group).dequantize() - weights) ** 2).mean()
    blocks = weights.reshape(-1, group)
    low, high = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
    step = (high - low) / 15
    plain = ((np.rint((blocks - low) / step) * step + low - blocks) ** 2).mean()
    assert found < gain * plain


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.25, 1e-7, -1e-9, 60000.0])
def test_constant_weights_are_kept(dtype: str, value: float) -> None:
    weights = np.full((2, 40), value, dtype=np.float32)
    error = np.abs(quantize(weights, dtype, 32).dequantize() - weights).max()
    assert error <= max(abs(value) * F16_STEP, 2.0**-24)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_tiny_weights_do_not_clip(dtype: str) -> None:
    """Scales below float16's normal range are coarse, and must still reach the largest weight."""
    weights = np.linspace(-3e-5, 3e-5, 64, dtype=np.float32)[None]
    quantized = quantize(weights, dtype, 64)
    error = np.abs(quantized.dequantize() - weights).max()
    assert error <= 2 * float(quantized.scales[0, 0]) + 2.0**-24


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(dtype: str, value: float) -> None:
    weights = np.zeros((2, 40), dtype=np.float32)
    weights[1, 39] = value
    with pytest.raises(SourceError, match=r"up_proj holds weights that are not finite"):
        quantize(weights, dtype, 32, "up_proj")


@pytest.mark.parametrize(("dtype", "value"), [("int8", 9e6), ("int4", 7e4), ("int4", -3.4e38)])
def test_weights_beyond_float16_scales_are_refused(dtype: str, value: float) -> None:
    weights = np.zeros((2, 40), dtype=np.float32)
    weights[1] = value
    with pytest.raises(SourceError, match=r"up_proj .* too large .* --dtype bf16"):
        quantize(weights, dtype, 32, "up_proj")


def test_rows_are_independent() -> None:
    weights = np.random.default_rng(0).normal(size=(10, 70)).astype(np.float16)
    whole = quantize(weights, "int8", 32)
    for row in range(10):
        alone = quantize(weights[row : row + 1], "int8", 32)
        assert np.array_equal(alone.numbers[0], whole.numbers[row])
        assert np.array_equal(alone.scales[0], whole.scales[row])


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 200), st.sampled_from(["int8", "int4"]), st.integers(0, 100))
def test_quantising_again_changes_nothing_much(inputs: int, dtype: str, seed: int) -> None:
    weights = np.random.default_rng(seed).normal(size=(3, inputs)).astype(np.float32)
    once = quantize(weights, dtype, 32).dequantize()
    twice = quantize(once, dtype, 32).dequantize()
    assert np.abs(twice - once).max() <= np.abs(weights).max() / (127 if dtype == "int8" else 7)


def from_gguf(name: str, rows: npt.NDArray[np.uint8]) -> Quantized:
    """Blocks of GGUF read by the text of its specification, not by converters/sources."""
    size = {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20}[name]
    blocks = rows.reshape(len(rows), -1, size)
    head = 4 if name == "Q4_1" else 2
    scales = np.ascontiguousarray(blocks[..., :2]).view("<f2")[..., 0]
    body = blocks[..., head:]
    if name == "Q8_0":
        return Quantized("int8", 32, body.reshape(len(rows), -1).view(np.int8), scales)
    numbers = np.concatenate([body & 15, body >> 4], axis=-1).reshape(len(rows), -1)
    minimums = np.ascontiguousarray(blocks[..., 2:4]).view("<f2")[..., 0]
    return Quantized("int4", 32, numbers, scales, minimums if name == "Q4_1" else None)


@pytest.mark.parametrize("orientation", ["output", "input"])
@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1"])
def test_blocks_of_gguf_come_in_without_loss(name: str, orientation: str) -> None:
    import gguf

    kind = gguf.GGMLQuantizationType[name]
    weights = np.random.default_rng(0).normal(size=(70, 320)).astype(np.float32)
    rows = gguf.quants.quantize(weights, kind)
    quantized = from_gguf(name, rows)
    layout = Layout(quantized.dtype, orientation, (70, 320), 32, name == "Q4_1")
    packed = unpack_matrix(pack_matrix(quantized, layout), layout)
    assert isinstance(packed, Quantized)
    assert np.array_equal(packed.dequantize(), gguf.quants.dequantize(rows, kind))


def test_six_bits_of_floats() -> None:
    values = np.random.default_rng(3).normal(size=(7, 512)).astype(np.float32)
    values[2, 16:32], values[3] = 0, 0
    packed = quantize_sixes(values)
    assert (packed.dtype, packed.group, packed.minimums) == ("int6k", 16, None)
    largest = np.abs(values).reshape(7, -1, 16).max(axis=2)
    error = np.abs(packed.dequantize() - values).reshape(7, -1, 16).max(axis=2)
    # Half a step, or what 31 steps lack of 32; scales are whole parts of the largest of 256.
    of_scales = np.repeat(largest.reshape(7, -1, 16).max(axis=2), 16, axis=1) / 250
    assert (error <= largest / 31 + of_scales).all()
    assert not packed.dequantize()[3].any()
    with pytest.raises(SourceError, match="not finite"):
        quantize_sixes(np.full((1, 256), np.inf))
    with pytest.raises(SourceError, match="float16"):
        quantize_sixes(np.full((1, 256), 1e30))
