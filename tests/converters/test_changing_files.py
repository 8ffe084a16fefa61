"""Files that are cut short, written over, replaced or removed while they are packed."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    kind: str,
    change: Callable[[Path], None],
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
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
        read, reads = opened.read, itertools.count()

        # Behind a read: what happens within one, a mapping that is cut short, nobody can catch.
        def read_and_change(*arguments: Any) -> Any:
            content = read(*arguments)
            if next(reads) == 2:
                change(weights)
            return content

        monkeypatch.setattr(opened, "read", read_and_change)
        before = set(names(tmp_path))
        with pytest.raises(SourceError, match=r"changed or replaced while it was read"):
            convert(opened, tmp_path / "out", PackOptions("bf16"))
    assert set(names(tmp_path)) <= before
