"""Packed folders made and damaged by hand: small writers, edited manifests and shard headers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors_files import edit_metadata, put_together, taken_apart

from sparity_edge.packed.layout import Layout
from sparity_edge.packed.writer import PackedWriter

SHARD = "model-00001-of-00001.safetensors"
UP = "model.layers.0.mlp.up_proj.weight"
NORM = "model.norm.weight"


def write_small(out: Path, force: bool = False, shard_bytes: int = 1 << 30) -> PackedWriter:
    """A writer for two matrices and two vectors that has not been entered."""
    tensors: dict[str, Any] = {
        "v": (7,),
        "a": Layout("f32", "output", (3, 5)),
        "w": (3,),
        "b": Layout("bf16", "input", (3, 5)),
    }
    return PackedWriter(out, tensors, source="s", options={}, force=force, shard_bytes=shard_bytes)


def fill(writer: PackedWriter) -> None:
    for name, spec in writer.tensors.items():
        if isinstance(spec, Layout):
            data = np.arange(spec.nbytes, dtype=np.uint8)
            writer.write(name, data[: spec.row_bytes])
            writer.write(name, data[spec.row_bytes :])
        else:
            writer.write(name, np.ones(spec, dtype=np.float32))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "sparity.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def edit_header(folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """Change header and layouts of the shard, keeping the manifest in step with its size."""
    edit_metadata(folder / SHARD, "sparity_edge", change)
    resize(folder)


def replace_header(folder: Path, text: bytes) -> None:
    path = folder / SHARD
    put_together(path, text, taken_apart(path)[1], 64)
    resize(folder)


def resize(folder: Path) -> None:
    edit_manifest(
        folder,
        lambda manifest: manifest["files"][SHARD].update(size=(folder / SHARD).stat().st_size),
    )
