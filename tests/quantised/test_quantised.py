"""Quantised safetensors: values bit for bit as each format's library reads them."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantised_files as files
import quantised_packers as packers
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import float8_e4m3fn

from converters.numbers.quantize import Quantized
from converters.sources.quantised import open_quantised
from converters.sources.quantised.bits import unpack_rows
from converters.sources.quantised.grid import Matrix
from sparity_edge.errors import SourceError

WEIGHT = f"{files.MODULE}.weight"


@cache
def goldens() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[1] / "golden" / "quantised.npz") as arrays:
        return dict(arrays)


def floats(content: Quantized | np.ndarray) -> np.ndarray:
    values = content.dequantize() if isinstance(content, Quantized) else content
    return values.astype(np.float32)


def opened(folder: Path, name: str, **changed: np.ndarray | None) -> Matrix:
    """The matrix of a form, with some parts in other arrays (None: left out)."""
    tensors = files.module(name)
    for part, value in changed.items():
        tensors.pop(f"{files.MODULE}.{part}", None)
        if value is not None:
            tensors[f"{files.MODULE}.{part}"] = value
    path = packers.write(folder / "model.safetensors", tensors)
    return open_quantised(files.FORMS[name].config, [path], "model").matrices[WEIGHT]


@pytest.mark.parametrize("name", files.FORMS)
def test_values_are_the_library_s(name: str, tmp_path: Path) -> None:
    matrix = opened(tmp_path, name)
    assert matrix.native == files.FORMS[name].native
    assert matrix.shape == (files.OUTPUTS, files.INPUTS)
    content = matrix.read(0, files.OUTPUTS)
    assert isinstance(content, Quantized) == (matrix.native is not None)
    values = floats(content)
    np.testing.assert_array_equal(values[:: files.KEPT], goldens()[name])
    np.testing.assert_array_equal(floats(matrix.read(3, 13)), values[3:13])


@pytest.mark.parametrize("wanted", [("int5", 32, False), ("int8", 64, False), ("int8", 32, False)])
def test_numbers_with_zero_points_are_held_exactly(
    wanted: tuple[str, int, bool], tmp_path: Path
) -> None:
    content = opened(tmp_path, "awq-64").read(0, files.OUTPUTS)
    assert isinstance(content, Quantized)
    held = content.held_as(wanted)
    assert (held.dtype, held.group, held.minimums is not None) == wanted
    np.testing.assert_array_equal(held.dequantize(), content.dequantize())


def test_four_bits_round_minima_alone(tmp_path: Path) -> None:
    content = opened(tmp_path, "awq-64").read(0, files.OUTPUTS)
    assert isinstance(content, Quantized)
    held = content.held_as(("int4", 64, True))
    assert held.numbers is content.numbers
    right = content.dequantize()
    assert 0 < np.abs(held.dequantize() - right).max() <= np.abs(right).max() * 2**-11


def test_scales_of_nothing_but_zeros_do_not_count(tmp_path: Path) -> None:
    """As of rows that no token has: the scale is a tiny number that float16 has not."""
    parts = files.FORMS["gptq-symmetric"].tensors(np.random.RandomState(0), 32, 192)
    scales = parts["scales"].astype(np.float32)
    scales[1, 5] = 1e-9
    with pytest.raises(AssertionError):
        assert opened(tmp_path, "gptq-symmetric", scales=scales).native
    numbers = parts["qweight"]
    numbers[8:16, 5] = np.uint32(0x88888888).astype(np.int32)
    matrix = opened(tmp_path, "gptq-symmetric", scales=scales, qweight=numbers)
    assert matrix.native == ("int4", 64, False)
    assert np.isfinite(floats(matrix.read(0, files.OUTPUTS))).all()


def test_blocks_that_are_cut(tmp_path: Path) -> None:
    """Blocks are as large as config.json says, also where the matrix ends within one."""
    parts = packers.fp8(
        np.random.RandomState(1), 32, 192, "weight_scale_inv", [20, 128], np.float32
    )
    path = packers.write(tmp_path / "f", {f"{files.MODULE}.{k}": v for k, v in parts.items()})
    block = {"quant_method": "fp8", "weight_block_size": [20, 128]}
    matrix = open_quantised({"quantization_config": block}, [path], "model").matrices[WEIGHT]
    rows, columns = np.arange(32)[:, None] // 20, np.arange(192) // 128
    wanted = parts["weight"].astype(np.float32) * parts["weight_scale_inv"][rows, columns]
    np.testing.assert_array_equal(matrix.read(0, 32), wanted)
    np.testing.assert_array_equal(matrix.read(7, 29), wanted[7:29])


def test_modules_with_settings_of_their_own(tmp_path: Path) -> None:
    make = partial(packers.mlx, outputs=32, inputs=192, storage=np.float16)
    parts = make(np.random.RandomState(2), bits=2, group=32)
    path = packers.write(tmp_path / "f", {f"{files.MODULE}.{k}": v for k, v in parts.items()})
    block = {"bits": 4, "group_size": 64, files.MODULE: {"bits": 2, "group_size": 32}}
    found = open_quantised({"quantization": {**block, "lm_head": False}}, [path], "model")
    assert found.matrices[WEIGHT].shape == (32, 192)
    assert found.matrices[WEIGHT].native == ("int4", 32, True)
    assert found.notes == ()


STATE = "weight.quant_state.bitsandbytes__nf4"


def state(content: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(content).encode(), np.uint8)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "qweight of floats": ("awq-64", {"qweight": np.zeros((192, 4), np.float32)}, "dtype F32"),
    "no scales": ("awq-64", {"scales": None}, "scales is missing"),
    "scales of others": ("awq-64", {"scales": np.zeros((3, 33), np.float16)}, "scales has shape"),
    "no groups": ("awq-64", {"scales": np.zeros((0, 32), np.float16)}, "qzeros has shape|without"),
    "no inputs": ("awq-64", {"qweight": np.zeros((0, 4), np.int32)}, "without numbers"),
    "no sides": ("awq-64", {"qweight": np.zeros((), np.int32)}, "2 sides"),
    "group": ("awq-64", {"qweight": np.zeros((1000, 4), np.int32)}, "3 groups for 1000 inputs"),
    "index": ("gptq-zeros", {"g_idx": np.full(192, 6, np.int32)}, "g_idx names a group"),
    "index below": ("gptq-zeros", {"g_idx": np.full(192, -1, np.int32)}, "g_idx names a group"),
    "index length": ("gptq-zeros", {"g_idx": np.zeros(191, np.int32)}, "g_idx has shape"),
    "index of floats": ("gptq-zeros", {"g_idx": np.zeros(192, np.float32)}, "g_idx has dtype"),
    "zeros": ("gptq-zeros", {"qzeros": np.zeros((6, 5), np.int32)}, "qzeros of shape"),
    "no zeros": ("gptq-zeros", {"qzeros": None}, "qzeros is missing"),
    "no biases": ("mlx-4-bit", {"biases": None}, "biases is missing"),
    "words": ("mlx-3-bit", {"weight": np.zeros((32, 19), np.uint32)}, "no whole number of 3 bits"),
    "width": ("mlx-4-bit", {"weight": np.zeros((32, 32), np.uint32)}, "3 groups for 256 inputs"),
    "bytes": ("fp8-all", {"weight": np.zeros((32, 192), np.uint8)}, "weight has dtype U8"),
    "no rows": ("fp8-all", {"weight": np.zeros((0, 192), float8_e4m3fn)}, "which is nothing"),
    "blocks": ("fp8-blocks", {"weight_scale_inv": np.ones((2, 4), np.float32)}, "in place of"),
    "no shape": ("packed-zeros", {"weight_shape": None}, "weight_shape is missing"),
    "a shape": ("packed-zeros", {"weight_shape": np.array([-1, 192])}, "beside weight_shape"),
    "long": ("packed-zeros", {"weight_shape": np.array([32, 1 << 60])}, "beside weight_shape"),
    "points": ("packed-zeros", {"weight_zero_point": np.zeros((5, 6), np.int32)}, "shape"),
    "order": ("packed-zeros", {"weight_g_idx": np.full(192, 6, np.int32)}, "weight_g_idx names"),
    "no nesting": ("nf4-nested", {"weight.nested_absmax": None}, "nested_absmax is missing"),
    "no state": ("nf4-plain", {STATE: None}, "is missing"),
    "no JSON": ("nf4-plain", {STATE: np.full(9, 91, np.uint8)}, "is not valid JSON"),
    "a list": ("nf4-plain", {STATE: state([])}, "is not a JSON object"),
    "shape": ("nf4-plain", {STATE: state({"shape": [32, True]})}, "shape="),
    "blocksize": ("nf4-plain", {STATE: state({"shape": [32, 192]})}, "blocksize=None"),
    "numbers": (
        "nf4-plain", {STATE: state({"shape": [32, 193], "blocksize": 64})}, "6176 numbers of 4 bits"
    ),
    "offset": (
        "nf4-nested",
        {STATE: state({"shape": [32, 192], "blocksize": 64, "nested_offset": "0"})},
        "nested_offset='0'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_parts_that_do_not_fit(what: str, tmp_path: Path) -> None:
    name, changed, sentence = REFUSED[what]
    with pytest.raises(SourceError, match=sentence) as caught:
        opened(tmp_path, name, **changed)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        ("awq", "quant_method='awq'"),
        ({"quant_method": "mlx", "bits": 4, "mode": "mxfp4"}, "mode='mxfp4'"),
        ({"bits": 7, "group_size": 64}, "bits=7"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size=\\[128\\]"),
        ({"quant_method": "compressed-tensors", "format": "marlin-24"}, "format='marlin-24'"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "load_in_8bit=True"),
        ({}, "quant_method=None"),
        ({"quant_method": ["awq"]}, "quant_method="),
        ({"quant_method": "hqq"}, "quant_method='hqq'"),
        ({"quant_method": "awq", "version": "gemv"}, "version='gemv'"),
        ({"quant_method": "awq", "bits": 8}, "bits=8"),
        ({"quant_method": "awq", "group_size": "64"}, "group_size='64'"),
        ({"quant_method": "awq", "group_size": 48}, "3 groups for 192 inputs and group_size=48"),
        ({"quant_method": "gptq", "bits": True}, "bits=True"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "'marlin'"),
        ({"quant_method": "gptq", "group_size": 1 << 40}, "group_size="),
    ],
)
def test_settings_that_are_refused(block: Any, sentence: str, tmp_path: Path) -> None:
    path = packers.write(tmp_path / "model.safetensors", files.module("awq-64"))
    with pytest.raises(SourceError, match=sentence) as caught:
        open_quantised({"quantization_config": block}, [path], "model")
    assert len(str(caught.value).splitlines()) == 1


@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 9), st.randoms())
def test_streams_of_bits(bits: int, rows: int, words: int, random: Any) -> None:
    packed = [random.getrandbits(32 * words) for _ in range(rows)]
    content = b"".join(each.to_bytes(4 * words, "little") for each in packed)
    found = unpack_rows(np.frombuffer(content, np.int32).reshape(rows, words), bits)
    assert found.dtype == np.uint8
    mask = (1 << bits) - 1
    wanted = [[each >> (bits * i) & mask for i in range(32 * words // bits)] for each in packed]
    assert found.tolist() == wanted
