"""Split GGUF models as llama-gguf-split writes them: any part opens all."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gguf_files
import numpy as np
import pytest

from converters.sources import open_source
from sparity_edge.errors import SourceError
from sparity_edge.system.split_files import parts_beside

COUNT = 3


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return write_parts(tmp_path / "parts")


def write_parts(folder: Path, tensor_total: int | None = None) -> list[Path]:
    """A model whose metadata stand in the first part and whose tensors stand in all of them."""
    folder.mkdir()
    weights = gguf_files.tensors()
    names = sorted(weights)
    paths = parts_beside(folder / f"tiny-00001-of-{COUNT:05d}.gguf")
    for part, path in enumerate(paths):
        keys: dict[str, Any] = {"split.no": part, "split.count": COUNT}
        if part == 0:
            keys["split.tensors.count"] = tensor_total or len(names)
        else:
            dropped = (*gguf_files.model_metadata("llama"), *gguf_files.plain_tokenizer())
            keys |= dict.fromkeys(dropped)
        mine = {name: weights[name] for name in names[part::COUNT]}
        gguf_files.write(path, weights=mine, metadata=keys)
    return paths


@pytest.mark.parametrize("part", range(COUNT))
def test_any_part_opens_all(parts: list[Path], part: int) -> None:
    with open_source(str(parts[part])) as source:
        assert source.files == tuple(parts)
        for name, values in gguf_files.tensors().items():
            np.testing.assert_array_equal(source.read(gguf_files.checkpoint_name(name)), values)


def test_a_part_that_is_not_there(parts: list[Path]) -> None:
    parts[0].unlink()
    with pytest.raises(SourceError, match=r"part 2 of 3 of a model, and tiny-00001-of-00003\.gguf"):
        open_source(str(parts[1]))
    parts[2].unlink()
    missing = r"and tiny-00001-of-00003\.gguf, tiny-00003-of-00003\.gguf are not beside it"
    with pytest.raises(SourceError, match=missing):
        open_source(str(parts[1]))


def test_a_part_under_another_name(parts: list[Path]) -> None:
    other = parts[1].rename(parts[1].with_name("model.gguf"))
    with pytest.raises(SourceError, match=r"part 2 of 3 .* end in -00002-of-00003\.gguf"):
        open_source(str(other))


def test_parts_in_the_wrong_order(parts: list[Path]) -> None:
    shutil.copy(parts[1], parts[2])
    with pytest.raises(SourceError, match="say of itself that it is part 3 of 3"):
        open_source(str(parts[0]))


def test_fewer_tensors_than_the_first_part_counts(tmp_path: Path) -> None:
    parts = write_parts(tmp_path / "short", tensor_total=99)
    with pytest.raises(SourceError, match=r"hold 11 tensors, but split\.tensors\.count=99"):
        open_source(str(parts[0]))


def test_one_part_is_a_whole_model(tmp_path: Path) -> None:
    for count in (0, 1):
        path = gguf_files.write(tmp_path / f"{count}.gguf", metadata={"split.count": count})
        open_source(str(path)).close()
