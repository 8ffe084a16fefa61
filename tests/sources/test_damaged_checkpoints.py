"""Safetensors of Hugging Face folders that are missing, cut short or lie."""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from checkpoint_edits import UP, edit, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors_files import put_together, taken_apart

from converters.sources import open_source
from converters.sources.source import INDEX, SINGLE
from sparity_edge.errors import SparityError


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "\xff", '{"a": ' * 100_000], ids=range(6)
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
def test_damaged_json(name: str, content: str, folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    (path / name).write_bytes(content.encode("latin-1"))
    refused(path, f"{name}: not (valid JSON|a JSON object)")


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "sub\\model.safetensors",
        "C:model.safetensors",
        ".model.safetensors",
        "model.bin",
        "nul\0.safetensors",
        "",
        None,
        7,
    ],
)
def test_tricks_in_shard_names(name: Any, folder: Callable[[str], Path]) -> None:
    path = folder("llama_sharded")
    edit(path / INDEX, lambda content: content["weight_map"].update({UP: name}))
    refused(path, "is not the plain name")


def test_missing_shards(folder: Callable[[str], Path]) -> None:
    path = folder("llama_sharded")
    (path / "model-00002-of-00003.safetensors").unlink()
    refused(path, "1 of 3 shards are missing, the first is model-00002-of-00003.safetensors")


def test_index_that_lies(folder: Callable[[str], Path]) -> None:
    """What a shard holds stands in the shard, as transformers takes it."""
    path = folder("llama_sharded")
    with open_source(str(path)) as source:
        right = source.read(UP)
    wrong = "model-00001-of-00003.safetensors"
    edit(
        path / INDEX,
        lambda content: content["weight_map"].update(
            {name: wrong for name in content["weight_map"] if name.endswith("up_proj.weight")}
        ),
    )
    edit(path / INDEX, lambda content: content["weight_map"].update({"rotary.inv_freq": wrong}))
    with open_source(str(path)) as source:
        assert np.array_equal(source.read(UP), right)


def test_shards_of_other_names(folder: Callable[[str], Path]) -> None:
    path = folder("llama_sharded")
    for shard in path.glob("*.safetensors"):
        shard.rename(path / f"part {shard.name[6:11]}.safetensors")
    edit(
        path / INDEX,
        lambda content: content.update(
            weight_map={
                name: f"part {shard[6:11]}.safetensors"
                for name, shard in content["weight_map"].items()
            }
        ),
    )
    open_source(str(path)).close()


@pytest.mark.parametrize("value", [{}, {"weight_map": []}, {"weight_map": {}}])
def test_index_without_a_map(value: dict[str, Any], folder: Callable[[str], Path]) -> None:
    path = folder("llama_sharded")
    (path / INDEX).write_text(json.dumps(value))
    refused(path, "weight_map is missing")


@pytest.mark.parametrize("keep", [0, 7, 8, 100, 5000, -1])
def test_truncated_weights(keep: int, folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    (path / SINGLE).write_bytes((path / SINGLE).read_bytes()[:keep])
    refused(path, "not a valid safetensors file")


def rewrite_header(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    text, data = taken_apart(path)
    header = json.loads(text)
    change(header)
    put_together(path, json.dumps(header).encode(), data)


LIES: dict[str, Any] = {
    "shape": {"shape": [128, 65]},
    "negative": {"shape": [-128, -64]},
    "overflow": {"shape": [1 << 40, 1 << 40]},
    "outside": {"data_offsets": [1 << 40, (1 << 40) + 32768]},
    "backwards": {"data_offsets": [32768, 0]},
    "overlap": {"data_offsets": [0, 32768]},
    "unknown dtype": {"dtype": "X9"},
}


@pytest.mark.parametrize("name", LIES)
def test_header_that_lies(name: str, folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    rewrite_header(path / SINGLE, lambda header: header[UP].update(LIES[name]))
    refused(path, "not a valid safetensors file")


def test_header_length_that_lies(folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    content = (path / SINGLE).read_bytes()
    for length in (0, 1, 1 << 62, (1 << 64) - 1):
        (path / SINGLE).write_bytes(struct.pack("<Q", length) + content[8:])
        refused(path, "not a valid safetensors file")


@pytest.mark.parametrize(("dtype", "shape"), [("I32", [128, 64]), ("F64", [128, 32])])
def test_unsupported_dtype(dtype: str, shape: list[int], folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    rewrite_header(
        path / SINGLE, lambda header: header[UP].update({"dtype": dtype, "shape": shape})
    )
    refused(path, "dtype I32" if dtype == "I32" else r"shape \(128, 32\)")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(tmp_path_factory.mktemp("healthy") / "model", "llama_small")


@settings(
    max_examples=150, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from([SINGLE, "config.json", "tokenizer_config.json"]),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4),
    keep=st.one_of(st.none(), st.floats(0, 1)),
)
def test_damage_never_escapes(
    healthy: Path,
    tmp_path: Path,
    name: str,
    flips: list[tuple[float, int]],
    keep: float | None,
) -> None:
    folder = Path(shutil.copytree(healthy, tmp_path / "model", dirs_exist_ok=True))
    content = bytearray((healthy / name).read_bytes())
    end = 3000 if name == SINGLE else len(content) - 1  # the header is what matters
    for place, change in flips:
        content[int(place * end)] ^= change
    if keep is not None:
        del content[int(keep * len(content)) :]
    (folder / name).write_bytes(content)
    with contextlib.suppress(SparityError), open_source(str(folder)) as source:
        for tensor in source.config.tensor_shapes():
            source.read(tensor)
