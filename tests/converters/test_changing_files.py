"""Files that are cut short, written over, replaced or removed while they are packed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import gguf_files
import pytest
from packed_files import names
from packing import pack_folder

from converters.pack import convert
from converters.pack_options import PackOptions
from converters.store import open_any
from sparity_edge.errors import SourceError


def cut(path: Path) -> None:
    os.truncate(path, 100)


def write_over(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, (1, 1))


def replace(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy(path, other)
    os.replace(other, path)  # noqa: PTH105


@pytest.mark.parametrize("change", [cut, write_over, replace, os.unlink])
@pytest.mark.parametrize("kind", ["checkpoint", "gguf", "packed"])
@pytest.mark.skipif(os.name == "nt", reason="Windows keeps open files from being changed")
def test_a_file_that_changes_while_it_is_packed(
    kind: str, change: Callable[[Path], None], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    if kind == "checkpoint":
        shutil.copytree(checkpoint("llama_gqa"), source)
    elif kind == "packed":
        pack_folder(checkpoint("llama_gqa"), source, "int8")
    else:
        source = gguf_files.write(tmp_path / "model.gguf")
    with open_any(str(source)) as opened:
        weights = max(opened.files, key=lambda path: path.stat().st_size)
        done = []

        def progress(*_: object) -> None:
            if not done:
                change(weights)
            done.append(1)

        before = set(names(tmp_path))
        with pytest.raises(SourceError, match=r"changed or replaced while it was read"):
            convert(opened, tmp_path / "out", PackOptions("bf16"), progress=progress)
    assert set(names(tmp_path)) <= before
