"""Low-bit types of GGUF files from the file to the packed folder: exact, at their own size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import gguf_files
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from packing import INT2K, INT3K, INT4, INT6K, INT8, IQ4, IQ4K, contents

from converters.numbers.layout_bytes import unpack_matrix
from converters.numbers.quantize import Quantized
from converters.options_check import refuse_mismatch
from converters.pack import convert
from converters.pack_options import PackOptions
from converters.sources import open_source
from converters.sources.packed import PackedSource
from sparity_edge.kernels.reference.unpack import unpack
from sparity_edge.model.opening import open_packed, verify_packed
from sparity_edge.packed.bundle import PackedBundle, halves_of
from sparity_edge.packed.layout import PackedMatrix

SHARD = "model-00001-of-00001.safetensors"
MATRICES = ["token_embd.weight"]
MATRICES += [f"blk.0.{stem}.weight" for stem in gguf_files.BLOCK if "norm" not in stem]
Form = tuple[str, int, bool]
# By type: what it is in dense layout, and what in every other place.
FORMS = {
    Kind.Q4_0: (INT4, INT4),  # as in files of models that were trained for it
    Kind.IQ4_NL: (IQ4, INT8),
    Kind.IQ4_XS: (IQ4K, INT8),
    Kind.Q3_K: (INT3K, INT6K),
    Kind.Q2_K: (INT2K, INT8),
}
EXACT = {Kind.Q4_0, Kind.IQ4_NL, Kind.Q3_K}  # in every place


@pytest.fixture(params=FORMS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def model(tmp_path: Path, kind: Kind) -> Path:
    weights = gguf_files.tensors(("attn_q", "attn_k", "attn_v"))
    kinds = dict.fromkeys(MATRICES, kind)
    return gguf_files.write(
        tmp_path / "model.gguf", architecture="qwen2", kinds=kinds, weights=weights
    )


def expected(model: Path) -> dict[str, np.ndarray]:
    """The matrices of a GGUF file as the gguf package has them."""
    found = {}
    for tensor in gguf.GGUFReader(model).tensors:
        if len(tensor.shape) == 2:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            found[gguf_files.checkpoint_name(tensor.name)] = values
    return found


def packed(source: Any, out: Path, **options: Any) -> Path:
    with source:
        return convert(source, out, PackOptions(**options))


def stored(folder: Path) -> dict[str, PackedMatrix | PackedBundle]:
    return {
        name: each
        for name, each in open_packed(folder).tensors.items()
        if isinstance(each, (PackedMatrix, PackedBundle))
    }


def test_dense_packs_are_exact(model: Path, kind: Kind, tmp_path: Path) -> None:
    folder = packed(open_source(str(model)), tmp_path / "out")
    verify_packed(folder)
    matrices = stored(folder)
    for name, values in expected(model).items():
        matrix = matrices[name]
        assert isinstance(matrix, PackedMatrix)
        layout = matrix.layout
        assert (layout.dtype, layout.group, layout.minimum) == FORMS[kind][0]
        np.testing.assert_array_equal(unpack(matrix), values)
        content = unpack_matrix(matrix.data, layout)
        assert isinstance(content, Quantized)
        np.testing.assert_array_equal(content.dequantize(), values)
    refuse_mismatch(folder, PackOptions())


@pytest.mark.parametrize("layout", ["neurons", "mixed", "input"])
def test_other_layouts(model: Path, kind: Kind, layout: str, tmp_path: Path) -> None:
    direct = packed(open_source(str(model)), tmp_path / "direct", layout=layout)
    dense = packed(open_source(str(model)), tmp_path / "dense")
    again = packed(PackedSource(dense), tmp_path / "again", layout=layout)
    assert contents(again)[SHARD] == contents(direct)[SHARD]
    wanted = expected(model)
    for name, matrix in stored(direct).items():
        if isinstance(matrix, PackedBundle):
            parts = dict(zip(halves_of(name), (matrix.layout.up, matrix.layout.down), strict=True))
            assert {(each.dtype, each.group, each.minimum) for each in parts.values()} == {
                FORMS[kind][1]
            }
            continue
        if matrix.layout.orientation == "output" or kind in EXACT:
            np.testing.assert_array_equal(unpack(matrix), wanted[name])
        else:
            largest = np.abs(wanted[name]).max()
            steps = 2**11 if kind is Kind.IQ4_XS else 127  # only scales are rounded, to 11 bits
            assert np.abs(unpack(matrix) - wanted[name]).max() <= largest / steps
    refuse_mismatch(direct, PackOptions(layout=layout))
