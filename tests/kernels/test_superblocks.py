"""K-quants and five bits from the GGUF to the packed folder: exact, at the document's size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import gguf_files
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from packing import (
    INT4_MINIMUM,
    INT4K,
    INT5,
    INT5_MINIMUM,
    INT5K,
    INT6K,
    INT8,
    contents,
)

from converters.numbers.layout_bytes import unpack_matrix
from converters.numbers.quantize import Quantized, quantize
from converters.options_check import refuse_mismatch
from converters.pack import convert
from converters.pack_options import PackOptions
from converters.sources import open_source
from converters.sources.packed import PackedSource
from sparity_edge.errors import OptionError, SourceError
from sparity_edge.kernels.reference.machine import ReferenceMachine
from sparity_edge.kernels.reference.unpack import unpack
from sparity_edge.model.opening import open_packed, verify_packed
from sparity_edge.packed.layout import PackedMatrix

REFERENCE = ReferenceMachine()
KINDS = (Kind.Q6_K, Kind.Q4_K, Kind.Q5_K, Kind.Q5_0, Kind.Q5_1)
FORMS = [INT6K, INT4K, INT5K, INT5, INT5_MINIMUM]  # of KINDS
# What becomes of a form where it is transposed, bundled, or not asked for.
PLAIN = {INT4K: INT4_MINIMUM, INT5: INT8, INT5_MINIMUM: INT8, INT5K: INT8, INT6K: INT8}
SHARD = "model-00001-of-00001.safetensors"
MATRICES = [f"blk.0.{stem}.weight" for stem in gguf_files.BLOCK if "norm" not in stem]
Form = tuple[str, int, bool]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF whose matrices have one number type after the other."""
    names = ["token_embd.weight", *MATRICES]
    kinds = {name: KINDS[index % len(KINDS)] for index, name in enumerate(names)}
    path = tmp_path_factory.mktemp("model") / "model.gguf"
    return gguf_files.write(path, architecture="qwen2", kinds=kinds, weights=_with_biases())


def _with_biases() -> dict[str, np.ndarray]:
    return gguf_files.tensors(("attn_q", "attn_k", "attn_v"))


def converted(source: Any, out: Path, **options: Any) -> Path:
    with source:
        return convert(source, out, PackOptions(**options))


def stored(folder: Path) -> dict[str, PackedMatrix]:
    found = open_packed(folder).tensors
    return {name: each for name, each in found.items() if isinstance(each, PackedMatrix)}


def numbers_of(matrix: PackedMatrix) -> Form:
    return matrix.layout.dtype, matrix.layout.group, matrix.layout.minimum


def test_a_packed_model_is_exact(model: Path, tmp_path: Path) -> None:
    folder = converted(open_source(str(model)), tmp_path / "out")
    verify_packed(folder)
    found, reader = stored(folder), gguf.GGUFReader(model)
    seen = set()
    for tensor in reader.tensors:
        if len(tensor.shape) == 2:
            matrix = found[gguf_files.checkpoint_name(tensor.name)]
            expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(unpack(matrix), expected)
            content = unpack_matrix(matrix.data, matrix.layout)
            assert isinstance(content, Quantized)
            np.testing.assert_array_equal(content.dequantize(), expected)
            seen.add(numbers_of(matrix))
    assert seen == set(FORMS)
    refuse_mismatch(folder, PackOptions())
    with pytest.raises(OptionError, match="int6k in groups of 16, not as asked for"):
        refuse_mismatch(folder, PackOptions("int4"))


@pytest.mark.parametrize("layout", ["neurons", "mixed", "input"])
def test_superblocks_stay_exact_in_every_layout(tmp_path: Path, layout: str) -> None:
    names = ["token_embd.weight", *MATRICES]
    kinds = {name: (Kind.Q6_K, Kind.Q4_K)[index % 2] for index, name in enumerate(names)}
    path = gguf_files.write(tmp_path / "model.gguf", kinds=kinds)
    dense = converted(open_source(str(path)), tmp_path / "dense")
    direct = converted(open_source(str(path)), tmp_path / "direct", layout=layout)
    again = converted(PackedSource(dense), tmp_path / "again", layout=layout)
    assert contents(again)[SHARD] == contents(direct)[SHARD]
    back = converted(PackedSource(direct), tmp_path / "back")
    assert contents(back)[SHARD] == contents(dense)[SHARD]
    refuse_mismatch(direct, PackOptions(layout=layout))


def test_superblocks_become_plain_integers(model: Path, tmp_path: Path) -> None:
    options = {"dtype": "int4"}
    direct = converted(open_source(str(model)), tmp_path / "direct", **options)
    dense = converted(open_source(str(model)), tmp_path / "dense")
    again = converted(PackedSource(dense), tmp_path / "again", **options)
    assert contents(again)[SHARD] == contents(direct)[SHARD]
    exact = stored(dense)
    for name, matrix in stored(direct).items():
        original = exact[name]
        if matrix.layout == original.layout:
            np.testing.assert_array_equal(matrix.data, original.data)
            continue
        whole = unpack(original)
        form = numbers_of(original)
        assert numbers_of(matrix) in {PLAIN[form], INT4_MINIMUM}
        if (form, numbers_of(matrix)) == (INT5, INT8):
            np.testing.assert_array_equal(unpack(matrix), whole)
        elif original.layout.dtype == "int4k":  # only scales and minima are rounded, to 11 bits
            assert np.abs(unpack(matrix) - whole).max() <= 2**-10 * np.abs(whole).max()
        else:
            wanted = quantize(whole, *numbers_of(matrix)[:2]).dequantize()
            np.testing.assert_array_equal(unpack(matrix), wanted)
    refuse_mismatch(direct, PackOptions(**options))


def test_what_a_layout_cannot_hold_is_said(model: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    for layout in ("dense", "input"):
        with open_source(str(model)) as source:
            convert(source, tmp_path / layout, PackOptions(layout=layout), notify=heard.append)
    [note] = heard
    assert "layout input rounds numbers anew: " in note
    assert "(int5k to int8)" in note
    assert "(int5 to int8)" in note  # that with minimum
    assert note.endswith("layout dense keeps them.")


@pytest.mark.parametrize(
    ("kind", "place"), [(Kind.Q4_K, 0), (Kind.Q5_K, 2), (Kind.Q6_K, 208), (Kind.Q5_1, 2)]
)
def test_factors_that_are_not_finite(tmp_path: Path, kind: Kind, place: int) -> None:
    name = "blk.0.ffn_up.weight"
    path = gguf_files.write(tmp_path / "model.gguf", kinds={name: kind})
    with open_source(str(path)) as source:
        offset = source._infos[name].offset  # type: ignore[attr-defined]
    with path.open("r+b") as file:
        file.seek(offset + place)
        file.write(np.float16(np.nan).tobytes())
    with open_source(str(path)) as source, pytest.raises(SourceError, match="not finite"):
        source.read(gguf_files.checkpoint_name(name))


def test_scales_too_large_for_float16_are_refused_where_they_are_wanted(tmp_path: Path) -> None:
    name = "blk.0.ffn_down.weight"
    path = gguf_files.write(tmp_path / "model.gguf", kinds={name: Kind.Q4_K})
    with open_source(str(path)) as source:
        offset = source._infos[name].offset  # type: ignore[attr-defined]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.float16(6e4).tobytes())
    converted(open_source(str(path)), tmp_path / "kept", layout="neurons")
    with pytest.raises(SourceError, match="not finite"):
        converted(open_source(str(path)), tmp_path / "turned", dtype="int4")
