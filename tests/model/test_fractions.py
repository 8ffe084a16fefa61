"""The active weight fraction: bytes read over the bytes that dense decoding reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from packing import pack_folder

from sparity_edge import Generator
from sparity_edge.measure.decoding import bytes_of_a_token


@pytest.mark.parametrize("layout", ["ffn", "neurons", "mixed", "input"])
def test_fractions_are_of_a_dense_pack(
    checkpoint: Callable[[str], Path], tmp_path: Path, layout: str
) -> None:
    sizes = {}
    for each in ("dense", layout):
        path = pack_folder(checkpoint("llama_gqa"), tmp_path / each, "int8", each)
        with Generator.load(path, threads=1) as generator:
            model = generator.loaded.model
            model.read([1, 2])
            sizes[each] = model.layer_bytes
            assert model.dense_layer_bytes == sizes["dense"]
            assert model.active_weight_fraction == sizes[each] / sizes["dense"]
            whole = bytes_of_a_token(model, 0, model.active_weight_fraction)
            assert whole == pytest.approx(bytes_of_a_token(model, 0), abs=1)
    assert sizes["dense"] != sizes[layout]
