"""The packed model folder: open and verify; writer.py writes it.

A folder holds config and tokenizer files as the model came with them, weights in safetensors
shards, and a manifest (sparity.json) with size and SHA-256 of each. docs/format.md has the whole
of it. Folders come from anywhere, so everything is checked before it is used; this module knows
bytes and names, and nothing of kernels or of where models come from.
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

from sparity_edge.config import ModelConfig
from sparity_edge.errors import FormatError
from sparity_edge.layout import Layout, PackedMatrix, aligned_empty
from sparity_edge.progress import Progress, silent
from sparity_edge.shards import (
    MAX_JSON_BYTES,
    Stored,
    damaged,
    parse_object,
    read_header,
    refuse_other_version,
    shown,
)

MANIFEST = "sparity.json"
FORMAT_NAME = "sparity-edge"
HASH_BLOCK = 4 << 20
_SHARD_NAME = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors", re.ASCII)


@dataclass(frozen=True)
class PackedFolder:
    """A packed folder that has been checked and not read: where each tensor stands."""

    path: Path
    config: dict[str, Any]
    generation_config: dict[str, Any]
    manifest: dict[str, Any]
    tensors: dict[str, Stored]


@dataclass(frozen=True)
class PackedModel:
    """A packed folder in memory."""

    path: Path
    config: dict[str, Any]  # config.json
    generation_config: dict[str, Any]  # generation_config.json, or empty
    manifest: dict[str, Any]  # sparity.json
    tensors: dict[str, PackedMatrix | npt.NDArray[np.float32]]

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(
            tensor.data.nbytes if isinstance(tensor, PackedMatrix) else tensor.nbytes
            for tensor in self.tensors.values()
        )


def is_packed(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a packed folder, be it damaged."""
    # Unlike Path.is_file this answers for names that the system refuses to look up.
    return os.path.isfile(os.path.join(path, MANIFEST))  # noqa: PTH113, PTH118


def open_folder(path: str | os.PathLike[str]) -> PackedFolder:
    """Check a packed folder and find its tensors, without reading a weight.

    Raises:
        FormatError: something is missing, damaged, inconsistent or of another version.
        ConfigError: config.json asks for what the decoder does not run.
    """
    folder = Path(path)
    try:
        manifest = read_manifest(folder)
        config = _read_json(folder, "config.json", manifest)
        generation = _read_json(folder, "generation_config.json", manifest, optional=True)
        expected = ModelConfig.from_dict(config, generation).tensor_shapes()
        tensors = _read_shards(folder, manifest)
    except OSError as error:
        raise damaged(folder, f"cannot be read ({error.strerror or error})") from error
    _match(folder, tensors, expected)
    return PackedFolder(folder, config, generation, manifest, tensors)


def open_packed(path: str | os.PathLike[str]) -> PackedModel:
    """Read a packed folder into memory.

    Each shard is read into one allocation, which NumPy marks for huge pages: random rows want
    them, and a file mapping would not get them. Tensors are views of it.

    Raises:
        FormatError, ConfigError: as `open_folder`.
    """
    folder = open_folder(path)
    arenas = {shard: _load(shard) for shard in {stored.shard for stored in folder.tensors.values()}}
    tensors: dict[str, PackedMatrix | npt.NDArray[np.float32]] = {}
    for name, stored in folder.tensors.items():
        start, arena = arenas[stored.shard]
        data = arena[stored.offset - start :][: stored.nbytes]
        if isinstance(stored.spec, Layout):
            tensors[name] = PackedMatrix(stored.spec, data)
        else:
            # A vector after one of odd length stands unaligned; these are small, so copy.
            vector = aligned_empty(stored.nbytes)
            vector[:] = data
            tensors[name] = vector.view(np.float32)
    return PackedModel(
        folder.path, folder.config, folder.generation_config, folder.manifest, tensors
    )


def verify_packed(path: str | os.PathLike[str], progress: Progress = silent) -> None:
    """Compare every file of a packed folder with the SHA-256 in its manifest.

    Raises:
        FormatError, ConfigError: the first fault found, structure before content.
    """
    folder = open_folder(path)
    files = folder.manifest["files"]
    total = sum(entry["size"] for entry in files.values())
    done = 0
    for name, entry in files.items():
        digest = hashlib.sha256()
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


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read sparity.json and check that its files are there in the sizes it names.

    Raises:
        FormatError: it is damaged, of another version, or a file is missing or truncated.
        OSError: it cannot be read.
    """
    manifest = _parse_manifest(folder)
    refuse_other_version(manifest.get("version"), folder / MANIFEST)
    for name, entry in manifest["files"].items():
        _check_file(folder, name, entry)
    return manifest


def listed_files(folder: Path) -> set[str]:
    """Names of all files that belong to a packed folder, be it damaged or of another version.

    Raises:
        FormatError: the manifest is none of a packed model.
        OSError: it cannot be read.
    """
    return {MANIFEST, *_parse_manifest(folder)["files"]}


def _parse_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not is_packed(folder):
        raise FormatError(
            f"{folder} is not a packed model: it has no {MANIFEST}; "
            "make one with sparity-edge convert SOURCE OUT."
        )
    manifest = parse_object(_read_bounded(path), path)
    if manifest.get("format") != FORMAT_NAME:
        raise damaged(path, "is not the manifest of a packed model")
    if not isinstance(manifest.get("files"), dict):
        raise damaged(path, "lists no files")
    return manifest


def _check_file(folder: Path, name: str, entry: Any) -> None:
    path = folder / MANIFEST
    if not _is_plain(name):
        raise damaged(path, f"lists {shown(name)}, which is not a plain file name")
    size = entry.get("size") if isinstance(entry, dict) else None
    if type(size) is not int or not isinstance(entry.get("sha256"), str):
        raise damaged(path, f"lists {name} without size or SHA-256")
    if not (folder / name).is_file():
        raise FormatError(f"{folder / name} is missing; convert the model again.")
    actual = (folder / name).stat().st_size
    if actual != size:
        raise damaged(folder / name, f"should have {size} bytes but has {actual}")


def _is_plain(name: str) -> bool:
    """A file name without a path, also in the eyes of Windows."""
    return name.isprintable() and not set(name) & set("/\\:") and name.strip(". ") != ""


def _read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise damaged(path, "is far too large")
    return content


def _read_json(
    folder: Path, name: str, manifest: dict[str, Any], optional: bool = False
) -> dict[str, Any]:
    if name not in manifest["files"]:
        if optional:
            return {}
        raise damaged(folder / MANIFEST, f"does not list {name}")
    return parse_object(_read_bounded(folder / name), folder / name)


def _read_shards(folder: Path, manifest: dict[str, Any]) -> dict[str, Stored]:
    names = sorted(name for name in manifest["files"] if _SHARD_NAME.fullmatch(name))
    if not names or names != [shard_name(index, len(names)) for index in range(len(names))]:
        raise damaged(folder / MANIFEST, "does not list a complete set of weight files")
    tensors: dict[str, Stored] = {}
    for name in names:
        found = read_header(folder / name)
        if twice := tensors.keys() & found.keys():
            raise damaged(folder / name, f"holds {shown(min(twice))} a second time")
        tensors.update(found)
    return tensors


def _match(folder: Path, tensors: dict[str, Stored], expected: dict[str, tuple[int, ...]]) -> None:
    """Compare what is stored with what config.json says the model consists of."""
    for name, shape in expected.items():
        if name not in tensors:
            raise damaged(folder, f"lacks the tensor {name}")
        spec = tensors[name].spec
        actual = spec.shape if isinstance(spec, Layout) else spec
        if actual != shape:
            raise damaged(
                folder, f"holds {name} as {list(actual)} where config.json says {list(shape)}"
            )
    if surplus := tensors.keys() - expected.keys():
        raise damaged(folder, f"holds {shown(min(surplus))}, which its config.json does not know")


def _load(shard: Path) -> tuple[int, npt.NDArray[np.uint8]]:
    """The data section of a shard, and its offset in the file."""
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
    return start, arena


def shard_name(index: int, count: int) -> str:
    """Name of shard `index` (from 0) of `count`."""
    return f"model-{index + 1:05d}-of-{count:05d}.safetensors"
