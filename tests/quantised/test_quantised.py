"""Quantised safetensors: values bit for bit as each format's library reads them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import quantised_files as files
from hypothesis import given
from hypothesis import strategies as st

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
    path = files.write(folder / "model.safetensors", tensors)
    return open_quantised(files.FORMS[name].config, [path], "model").matrices[WEIGHT]


@pytest.mark.parametrize("name", files.FORMS)
def test_values_are_the_library_s(name: str, tmp_path: Path) -> None:
    matrix = opened(tmp_path, name)
    assert matrix.native == files.FORMS[name].native
    assert matrix.shape == goldens()[name].shape
    content = matrix.read(0, files.OUTPUTS)
    assert isinstance(content, Quantized) == (matrix.native is not None)
    np.testing.assert_array_equal(floats(content), goldens()[name])
    np.testing.assert_array_equal(floats(matrix.read(3, 13)), goldens()[name][3:13])


@pytest.mark.parametrize("wanted", [("int5", 32, False), ("int8", 64, False), ("int8", 32, False)])
def test_numbers_with_zero_points_are_held_exactly(
    wanted: tuple[str, int, bool], tmp_path: Path
) -> None:
    content = opened(tmp_path, "awq-64").read(0, files.OUTPUTS)
    assert isinstance(content, Quantized)
    held = content.held_as(wanted)
    assert (held.dtype, held.group, held.minimums is not None) == wanted
    np.testing.assert_array_equal(held.dequantize(), goldens()["awq-64"])


def test_four_bits_round_minima_alone(tmp_path: Path) -> None:
    content = opened(tmp_path, "awq-64").read(0, files.OUTPUTS)
    assert isinstance(content, Quantized)
    held = content.held_as(("int4", 64, True))
    assert held.numbers is content.numbers
    right = goldens()["awq-64"]
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
    path = files.write(tmp_path / "model.safetensors", files.module("awq-64"))
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
