"""Rotated folders that are damaged, or lie about being rotated: one sentence each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packed_files import edit_header, edit_manifest

from sparity_edge.errors import ConfigError, FormatError
from sparity_edge.model.opening import open_folder, verify_packed
from sparity_edge.packed.shards import FORMAT_VERSION, ROTATED_VERSION

ADAPTER = "model.layers.1.residual_adapter.weight"
KEY = "sparity_edge_rotation"


@pytest.fixture
def folder(rotate: Callable[..., Path], tmp_path: Path) -> Path:
    """A rotated folder that a test may damage."""
    return Path(shutil.copytree(rotate("llama_gqa", "layers"), tmp_path / "model"))


def edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(json.dumps(config), encoding="utf-8")
    size = path.stat().st_size
    edit_manifest(folder, lambda manifest: manifest["files"]["config.json"].update(size=size))


def test_a_sound_folder_says_that_it_is_rotated(folder: Path) -> None:
    verify_packed(folder)
    manifest = open_folder(folder).manifest
    assert manifest["version"] == ROTATED_VERSION != FORMAT_VERSION, "older readers refuse it"
    rotation = open_folder(folder).config.rotation
    assert rotation is not None
    assert rotation.kind == "layers"


@pytest.mark.parametrize(
    "value",
    [
        True, "layers", [], {}, {"kind": "layers"}, {"kind": "layers", "basis": "0" * 63},
        {"kind": "layers", "basis": 5}, {"kind": "other", "basis": "0" * 64},
        {"kind": ["layers"], "basis": "0" * 64}, {"kind": "layers", "basis": "0" * 64, "more": 1},
    ],
)  # fmt: skip
def test_damaged_words_are_refused(value: Any, folder: Path) -> None:
    edit_config(folder, lambda config: config.update({KEY: value}))
    with pytest.raises(ConfigError, match="rotate the model again"):
        open_folder(folder)


@pytest.mark.parametrize("version", [FORMAT_VERSION, 7, 10, "9", None, True])
def test_versions_must_be_that_of_rotated_folders(version: Any, folder: Path) -> None:
    edit_manifest(folder, lambda manifest: manifest.update(version=version))
    with pytest.raises(FormatError, match=r"rotated|format version"):
        open_folder(folder)


def test_rotation_cannot_be_denied(folder: Path) -> None:
    edit_config(folder, lambda config: config.pop(KEY))
    with pytest.raises(FormatError, match="disagrees with its config"):
        open_folder(folder)
    edit_manifest(folder, lambda manifest: manifest.update(version=FORMAT_VERSION))
    with pytest.raises(FormatError, match=f"holds '{ADAPTER}', for which"):
        open_folder(folder)


def test_an_adapter_that_is_missing(rotate: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(rotate("llama_gqa", "global"), tmp_path / "model"))
    edit_config(folder, lambda config: config[KEY].update(kind="layers"))
    with pytest.raises(FormatError, match=f"lacks the tensor {ADAPTER}"):
        open_folder(folder)


def test_an_adapter_of_another_shape(folder: Path) -> None:
    def change(_: dict[str, Any], layouts: dict[str, Any]) -> None:
        layouts["tensors"][ADAPTER]["shape"] = [32, 128]

    edit_header(folder, change)
    with pytest.raises(FormatError, match="residual_adapter"):
        open_folder(folder)
