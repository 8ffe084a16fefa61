"""Reading a packed folder: what was written comes back, and verification finds a changed bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from packed_files import SHARD, fill, write_small
from packing import CONFIG, FakeSource, equal

from converters.numbers.layout_bytes import unpack_matrix
from sparity_edge.errors import FormatError
from sparity_edge.model.families import read_config
from sparity_edge.model.opening import open_folder, open_packed, verify_packed
from sparity_edge.packed.folder import read_folder
from sparity_edge.packed.layout import PackedMatrix
from sparity_edge.packed.manifest import is_packed


def test_what_was_written_is_read(pristine: Path) -> None:
    model = open_packed(pristine)
    source = FakeSource()
    files = read_folder(pristine)
    assert files.config_json == CONFIG
    assert files.generation_config == {"eos_token_id": [2, 3]}
    assert model.config == read_config(CONFIG, files.generation_config)
    assert model.manifest["source"] == "fake"
    assert model.manifest["options"] == {"dtype": None, "group": None, "layout": "dense"}
    assert set(model.tensors) == set(source.tensors)
    for name, tensor in model.tensors.items():
        if isinstance(tensor, PackedMatrix):
            assert tensor.data.ctypes.data % 64 == 0
            assert tensor.layout.dtype == "int8"
            values = unpack_matrix(tensor.data, tensor.layout)
            assert not isinstance(values, np.ndarray)
            assert np.abs(values.dequantize() - source.tensors[name]).max() < 0.02
        else:
            assert tensor.ctypes.data % 64 == 0
            assert equal(tensor, source.tensors[name])
    assert model.nbytes == sum(stored.nbytes for stored in open_folder(pristine).tensors.values())
    verify_packed(pristine)


def test_stock_safetensors_reads_a_shard(pristine: Path) -> None:
    from safetensors import numpy

    tensors = numpy.load_file(pristine / SHARD)
    model = open_packed(pristine)
    assert set(tensors) == set(model.tensors)
    for name, tensor in model.tensors.items():
        data = tensor.data if isinstance(tensor, PackedMatrix) else tensor
        assert equal(tensors[name], data)


def test_several_shards(tmp_path: Path) -> None:
    from safetensors import numpy

    with write_small(tmp_path / "out", shard_bytes=1) as writer:
        fill(writer)
    shards = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert shards == [f"model-{index:05d}-of-00004.safetensors" for index in range(1, 5)]
    found = [list(numpy.load_file(tmp_path / "out" / name)) for name in shards]
    assert found == [["a"], ["b"], ["v"], ["w"]]


def test_verify_finds_a_changed_bit_and_tells_its_progress(packed: Path) -> None:
    calls: list[tuple[int, int]] = []
    verify_packed(packed, lambda _, done, total: calls.append((done, total)))
    assert (
        calls[-1][0]
        == calls[-1][1]
        == sum(path.stat().st_size for path in packed.iterdir() if path.name != "sparity.json")
    )
    content = bytearray((packed / SHARD).read_bytes())
    content[-1] ^= 1
    (packed / SHARD).write_bytes(content)
    open_packed(packed)
    with pytest.raises(FormatError, match=r"does not match its SHA-256.*convert"):
        verify_packed(packed)


def test_what_is_not_packed(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", "a\0b", "x" * 5000):
        assert not is_packed(path)
        with pytest.raises(FormatError, match=r"is not a packed model.*sparity-edge convert"):
            open_packed(path)
