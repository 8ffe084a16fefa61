"""The packed model folder: read and verify; writer.py writes it.

A folder holds config and tokenizer files as the model came with them, weights in safetensors
shards, perhaps plans, and a manifest (sparity.json) with size and SHA-256 of each. docs/format.md
has the whole of it. Folders come from anywhere, so everything is checked before it is used; this
module knows bytes and names, and nothing of kernels, of plans' contents or of what a configuration
means: `model.opening` parses it and compares the tensors with it.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import aligned_empty
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.packed.bundle import BundleLayout, PackedBundle
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.packed.manifest import MANIFEST, check_size, read_bounded, read_manifest
from sparity_edge.packed.shards import (
    Packed,
    Stored,
    damaged,
    parse_object,
    read_header,
    shown,
)
from sparity_edge.progress import Progress, silent
from sparity_edge.system.headroom import demand_memory

HASH_BLOCK = 4 << 20
Vector = npt.NDArray[np.float32]
_SHARD_NAME = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors", re.ASCII)


@dataclass(frozen=True)
class FolderFiles:
    """The small files of a packed folder and where each tensor stands, whatever they mean."""

    path: Path
    config_json: dict[str, Any]  # config.json
    generation_config: dict[str, Any]  # generation_config.json, or empty
    manifest: dict[str, Any]  # sparity.json
    tensors: dict[str, Stored]


@dataclass(frozen=True)
class PackedFolder(FolderFiles):
    """A packed folder that has been checked and not read: its tensors are those of its model."""

    config: ModelConfig

    @property
    def layouts(self) -> dict[str, Packed]:
        """How each matrix and bundle is stored, by name."""
        specs = {name: stored.spec for name, stored in self.tensors.items()}
        return {name: spec for name, spec in specs.items() if isinstance(spec, Packed)}

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(stored.nbytes for stored in self.tensors.values())


@dataclass(frozen=True)
class PackedModel:
    """A packed folder in memory."""

    path: Path
    config: ModelConfig
    manifest: dict[str, Any]  # sparity.json
    tensors: dict[str, PackedMatrix | PackedBundle | Vector]
    generation_config: dict[str, Any]  # generation_config.json, or empty

    @property
    def layouts(self) -> dict[str, Packed]:
        """How each matrix and bundle is stored, by name."""
        return {
            name: tensor.layout
            for name, tensor in self.tensors.items()
            if not isinstance(tensor, np.ndarray)
        }

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(
            tensor.nbytes if isinstance(tensor, np.ndarray) else tensor.data.nbytes
            for tensor in self.tensors.values()
        )


def read_folder(path: str | os.PathLike[str]) -> FolderFiles:
    """Check the files of a packed folder and find its tensors, without reading a weight.

    Raises:
        FormatError: something is missing, damaged, inconsistent or of another version.
    """
    folder = Path(path)
    try:
        manifest = read_manifest(folder)
        config = _read_json(folder, "config.json", manifest)
        generation = _read_json(folder, "generation_config.json", manifest, optional=True)
        tensors = _read_shards(folder, manifest)
    except OSError as error:
        raise damaged(folder, f"cannot be read ({error.strerror or error})") from error
    return FolderFiles(folder, config, generation, manifest, tensors)


def read_weights(folder: PackedFolder) -> PackedModel:
    """Read the weights of a packed folder into memory.

    Each shard is read into one allocation, which NumPy marks for huge pages: random rows want
    them, and a file mapping would not get them. Tensors are views of it.

    Raises:
        FormatError: a file cannot be read.
        ResourceError: they do not fit into memory; nothing has been read then.
    """
    demand_memory(folder.nbytes, f"{folder.path}: the model")
    shards = {stored.shard for stored in folder.tensors.values()}
    arenas = {shard: load_shard(shard) for shard in shards}
    tensors = {name: view(stored, arenas[stored.shard]) for name, stored in folder.tensors.items()}
    return PackedModel(
        folder.path, folder.config, folder.manifest, tensors, folder.generation_config
    )


def view(stored: Stored, arena: npt.NDArray[np.uint8]) -> PackedMatrix | PackedBundle | Vector:
    """A tensor in the memory that `load_shard` gave for its shard."""
    data = arena[stored.offset - stored.start :][: stored.nbytes]
    if isinstance(stored.spec, Layout):
        return PackedMatrix(stored.spec, data)
    if isinstance(stored.spec, BundleLayout):
        return PackedBundle(stored.spec, data)
    # A vector after one of odd length stands unaligned; these are small, so copy.
    vector = aligned_empty(stored.nbytes)
    vector[:] = data
    return vector.view(np.float32)


def verify_files(folder: FolderFiles, progress: Progress = silent) -> dict[str, int]:
    """Compare every file of a packed folder with the SHA-256 in its manifest.

    Returns:
        Bytes of each file.

    Raises:
        FormatError: the first fault found.
    """
    files = folder.manifest["files"]
    total = sum(entry["size"] for entry in files.values())
    done = 0
    for name, entry in files.items():
        digest = hashlib.sha256()
        check_size(folder.path, name, entry["size"])
        try:
            with (folder.path / name).open("rb") as file:
                while block := file.read(HASH_BLOCK):
                    digest.update(block)
                    done += len(block)
                    progress("verify", done, total)
        except OSError as error:
            raise damaged(folder.path / name, f"cannot be read ({error.strerror})") from error
        if digest.hexdigest() != entry["sha256"]:
            raise damaged(folder.path / name, "does not match its SHA-256 in the manifest")
    return {name: entry["size"] for name, entry in files.items()}


def _read_json(
    folder: Path, name: str, manifest: dict[str, Any], optional: bool = False
) -> dict[str, Any]:
    if name not in manifest["files"]:
        if optional:
            return {}
        raise damaged(folder / MANIFEST, f"does not list {name}")
    return parse_object(read_bounded(folder / name), folder / name)


def _read_shards(folder: Path, manifest: dict[str, Any]) -> dict[str, Stored]:
    names = sorted(name for name in manifest["files"] if _SHARD_NAME.fullmatch(name))
    if not names or names != [shard_name(index, len(names)) for index in range(len(names))]:
        raise damaged(folder / MANIFEST, "does not list a complete set of weight files")
    tensors: dict[str, Stored] = {}
    for name in names:
        found, _ = read_header(folder / name)
        if twice := tensors.keys() & found.keys():
            raise damaged(folder / name, f"holds {shown(min(twice))} a second time")
        tensors.update(found)
    return tensors


def load_shard(shard: Path) -> npt.NDArray[np.uint8]:
    """The data section of a shard whose header has been checked.

    Raises:
        FormatError: it cannot be read.
    """
    try:
        with shard.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size - start
            arena = aligned_empty(size)
            file.seek(start)
            if file.readinto(arena.data) != size:
                raise damaged(shard, "ended early")
    except OSError as error:
        raise damaged(shard, f"cannot be read ({error.strerror or error})") from error
    return arena


def shard_name(index: int, count: int) -> str:
    """Name of shard `index` (from 0) of `count`."""
    return f"model-{index + 1:05d}-of-{count:05d}.safetensors"
