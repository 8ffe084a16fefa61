"""The safetensors container of a packed folder: headers written, and read without trust.

A shard is a plain safetensors file: 8 bytes of header length, a JSON header, data. Matrices and
bundles are 1-D U8 tensors whose layouts stand in the metadata, norms and biases F32. Files of plans
are shards too. This module knows one shard; which tensors a model needs is format.py's concern.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparity_edge.arrays import ALIGNMENT, round_up
from sparity_edge.errors import FormatError
from sparity_edge.packed.bundle import BundleLayout
from sparity_edge.packed.layout import Layout

FORMAT_VERSION = 8
# Of the manifest of a folder whose weights are rotated, or that has LoRA adapters beside them; its
# shards are as ever.
ROTATED_VERSION, LORA_VERSION = 9, 10
METADATA_KEY = "sparity_edge"
MAX_JSON_BYTES = 64 << 20  # a header of 1024 layers has about 3 MB
PLAN_FILE = re.compile(r"plan-([a-z0-9-]{1,40})\.safetensors", re.ASCII)

# What a tensor is: a matrix or bundle in a layout, or the shape of a float32 vector.
Packed = Layout | BundleLayout
TensorSpec = Packed | tuple[int, ...]


@dataclass(frozen=True)
class Stored:
    """Where one tensor stands on disk."""

    shard: Path
    start: int  # of the shard's data, in bytes from the beginning of the file
    offset: int  # of the tensor, likewise
    spec: TensorSpec

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return spec_nbytes(self.spec)


def spec_nbytes(spec: TensorSpec) -> int:
    """Bytes that a tensor takes in a shard."""
    return spec.nbytes if isinstance(spec, Packed) else 4 * spec[0]


def damaged(path: Path, fault: str) -> FormatError:
    """The error for a file of a packed folder that cannot be trusted."""
    plan = PLAN_FILE.fullmatch(path.name)
    remedy = f"remove plan {plan[1]} or make it again" if plan else "convert the model again"
    return FormatError(f"{path} {fault}; {remedy}.")


def shown(name: str) -> str:
    """A name from outside for a message: quoted, escaped and cut."""
    return ascii(name if len(name) <= 80 else name[:77] + "...")


def parse_object(content: bytes, path: Path) -> dict[str, Any]:
    """Decode a JSON object from outside, refusing keys that occur twice.

    Raises:
        FormatError: it is no JSON object.
    """
    try:
        value = json.loads(content.decode(), object_pairs_hook=_unique)
    # A deeply nested text exhausts the stack, not the memory.
    except (ValueError, RecursionError) as error:
        raise damaged(path, "holds no valid JSON") from error
    if not isinstance(value, dict):
        raise damaged(path, "holds no JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def build_header(tensors: Mapping[str, TensorSpec], more: Mapping[str, str] | None = None) -> bytes:
    """The first bytes of a shard that holds `tensors` in this order.

    Padded with spaces so that the data begins at a multiple of 64 bytes in the file.

    Args:
        tensors: what the shard holds, by name.
        more: further entries of the metadata.
    """
    layouts = {name: spec.to_dict() for name, spec in tensors.items() if isinstance(spec, Packed)}
    metadata = json.dumps({"version": FORMAT_VERSION, "tensors": layouts})
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: metadata, **(more or {})}}
    start = 0
    for name, spec in tensors.items():
        stop = start + spec_nbytes(spec)
        shape = [stop - start] if isinstance(spec, Packed) else list(spec)
        dtype = "U8" if isinstance(spec, Packed) else "F32"
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    padded = text.ljust(round_up(8 + len(text), ALIGNMENT) - 8)
    return len(padded).to_bytes(8, "little") + padded


def read_header(path: Path) -> tuple[dict[str, Stored], dict[str, Any]]:
    """Read and check the header of a shard; no weight is read.

    Returns:
        Its tensors, and the whole metadata, of which only our own entry has been checked.

    Raises:
        FormatError: the header is damaged, or disagrees with the file or with itself.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        data_start = 8 + length
        if length > MAX_JSON_BYTES or data_start > size:
            raise damaged(path, "is truncated or no safetensors file")
        header = parse_object(file.read(length), path)
    if data_start % ALIGNMENT:
        raise damaged(path, "has unaligned data")
    metadata = header.pop("__metadata__", None)
    layouts = _layouts(metadata, path)
    offsets = {name: _offsets(name, entry, path) for name, entry in header.items()}
    stored, unclaimed = {}, set(layouts)
    expected = 0
    for name, (start, stop) in sorted(offsets.items(), key=lambda item: item[1]):
        spec = _spec(name, header[name], layouts, path)
        if start != expected or stop - start != spec_nbytes(spec):
            raise damaged(
                path, f"gives {shown(name)} offsets that do not fit its shape or neighbours"
            )
        if isinstance(spec, Packed) and start % ALIGNMENT:
            raise damaged(path, f"holds {shown(name)} unaligned")
        stored[name] = Stored(path, data_start, data_start + start, spec)
        unclaimed.discard(name)
        expected = stop
    if unclaimed:
        raise damaged(path, f"describes {shown(min(unclaimed))} but does not hold it")
    if data_start + expected != size:
        raise damaged(path, f"should have {data_start + expected} bytes but has {size}")
    return stored, metadata


def _layouts(metadata: Any, path: Path) -> dict[str, Packed]:
    text = metadata.get(METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise damaged(path, "lacks the metadata of a packed model")
    inner = parse_object(text.encode(errors="replace"), path)
    refuse_other_version(inner.get("version"), path)
    tensors = inner.get("tensors")
    if not isinstance(tensors, dict):
        raise damaged(path, "has metadata without tensors")
    layouts: dict[str, Packed] = {}
    for name, value in tensors.items():
        bundle = isinstance(value, dict) and "up" in value
        try:
            layouts[name] = (BundleLayout if bundle else Layout).from_dict(value)
        except FormatError as error:
            raise damaged(
                path, f"describes {shown(name)} wrongly: {str(error).rstrip('.')}"
            ) from error
    return layouts


def refuse_other_version(
    version: Any, path: Path, read: Collection[int] = (FORMAT_VERSION,)
) -> None:
    """Refuse a version of the format that this program does not read.

    Args:
        version: what stands in the file.
        path: of the file.
        read: the versions that are read there.

    Raises:
        FormatError: it is another version, or none.
    """
    if type(version) is not int:
        raise damaged(path, "names no format version")
    if version not in read:
        raise FormatError(
            f"{path} has format version {version} and this program reads version "
            f"{FORMAT_VERSION}; convert the model again or install the matching sparity-edge."
        )


def _offsets(name: str, entry: Any, path: Path) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(offset) is int for offset in offsets)
        or not 0 <= offsets[0] <= offsets[1]
    ):
        raise damaged(path, f"gives {shown(name)} no valid offsets")
    return offsets[0], offsets[1]


def _spec(name: str, entry: dict[str, Any], layouts: dict[str, Packed], path: Path) -> TensorSpec:
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(shape, list) or len(shape) != 1 or type(shape[0]) is not int or shape[0] < 1:
        raise damaged(path, f"gives {shown(name)} no valid shape")
    if dtype == "F32" and name not in layouts:
        return (shape[0],)
    if dtype != "U8" or name not in layouts:
        raise damaged(path, f"gives {shown(name)} a dtype that does not fit its layout")
    if layouts[name].nbytes != shape[0]:
        raise damaged(path, f"gives {shown(name)} a shape that does not fit its layout")
    return layouts[name]
