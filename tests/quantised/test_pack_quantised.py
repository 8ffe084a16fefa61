"""Quantised safetensors packed: every value stays where a layout has a place for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import quantised_files as files
import quantised_packers as packers
from safetensors.numpy import load_file

from converters.numbers.quantize import Quantized
from converters.pack import convert
from converters.pack_options import PackOptions
from converters.sources import open_source
from converters.sources.packed import PackedSource
from converters.sources.source import Source
from sparity_edge.progress import CallContext


def values(source: Source, name: str) -> np.ndarray:
    content = source.read(name)
    return content.dequantize() if isinstance(content, Quantized) else content.astype(np.float32)


@pytest.fixture
def quantised(tmp_path: Path, checkpoint: Callable[[str], Path]) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        folder = Path(shutil.copytree(checkpoint("llama_gqa"), tmp_path / name))
        files.quantise(folder, name)
        return folder

    return make


@pytest.mark.parametrize(
    ("name", "layout", "down"),
    [
        ("awq-64", "dense", ("int5", 32, False)),
        ("awq-64", "neurons", ("int8", 64, False)),
        ("gptq-symmetric", "mixed", ("int4", 64, False)),
        ("mlx-4-bit", "neurons", ("int4", 64, True)),
        ("gptq-8-bit", "dense", ("int8", 64, False)),
    ],
)
def test_no_value_changes(
    name: str, layout: str, down: tuple[str, int, bool],
    quantised: Callable[[str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    with open_source(str(quantised(name))) as source:
        convert(source, tmp_path / "packed", PackOptions(layout=layout))
        with PackedSource(tmp_path / "packed") as packed:
            linears = [each for each in packed.shapes() if each.endswith("_proj.weight")]
            assert len(linears) == 14
            assert {packed.native(each) for each in linears if "down" in each} == {down}
            for each in linears:
                assert np.array_equal(values(source, each), values(packed, each)), each
    assert "quantization_config" not in json.loads((tmp_path / "packed/config.json").read_text())


def test_four_bits_and_biases_of_nothing(quantised: Callable[[str], Path], tmp_path: Path) -> None:
    """As asked for, minima are rounded to keep four bits; biases of zeros are left out."""
    folder = quantised("awq-64")
    tensors = load_file(folder / "model.safetensors")
    tensors[f"{files.MODULE}.bias"] = np.zeros(128, np.float16)
    packers.write(folder / "model.safetensors", tensors)
    said: list[str] = []
    with open_source(str(folder), CallContext(notify=said.append)) as source:
        convert(source, tmp_path / "packed", PackOptions(dtype="int4"))
        with PackedSource(tmp_path / "packed") as packed:
            name = f"{files.MODULE}.weight"
            assert packed.native(name) == ("int4", 64, True)
            right = values(source, name)
            assert np.abs(values(packed, name) - right).max() <= np.abs(right).max() * 2**-11
    assert "--dtype int4 keeps four bits" in " ".join(said)
