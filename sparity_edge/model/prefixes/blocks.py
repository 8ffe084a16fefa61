"""Blocks: keys and values of a few positions of a text in a file that is named after that text.

The name of a block follows from all token ids up to its end, from the model, from the number format
and from the kernels that read it: what has the name has the bits that reading would give. A file is
checked before anything of it is used. Knows nothing of how many files there may be.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparity_edge.arrays import Numbers
from sparity_edge.errors import FormatError, library_words
from sparity_edge.kernels.kernel import version_of_kernels
from sparity_edge.model.kv_cache import KVCache
from sparity_edge.system.atomic import replace_file

BLOCK = 32  # positions
SUFFIX = ".prefix"
_VERSION = "1"
_MOST_HEADER = 4096  # bytes of a file that are no numbers


class Block(NamedTuple):
    """What a file holds: BLOCK positions."""

    ids: Sequence[int]
    keys: Numbers  # (layers, heads, BLOCK, bytes of a row) uint8
    values: Numbers

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes


def space_of(model: str, cache: KVCache) -> str:
    """What values depend on beside token ids, as the beginning of all names.

    Args:
        model: the content of the packed folder, as its manifest has it.
        cache: gives number format and the rotation of keys.
    """
    what = (_VERSION, BLOCK, model, cache.dtype, cache.stretch, version_of_kernels())
    return hashlib.sha256(repr(what).encode()).hexdigest()


def names_of(space: str, ids: Sequence[int]) -> list[str]:
    """The name of each whole block of a text, by the ids up to its end.

    Args:
        space: of the model, see `space_of`.
        ids: of the text.
    """
    digest, found = hashlib.sha256(space.encode()), []
    content = np.asarray(ids, dtype="<i8")
    for first in range(0, len(ids) - BLOCK + 1, BLOCK):
        digest.update(content[first : first + BLOCK].tobytes())
        found.append(digest.hexdigest())
    return found


def path_of(folder: Path, name: str) -> Path:
    """Where a block is; folders of few files, for each write looks through one."""
    return folder / name[:2] / (name + SUFFIX)


def write_block(path: Path, block: Block) -> None:
    """Write a file at once or not at all; only its owner may read it.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.numpy import save

    parts = {
        "ids": np.asarray(block.ids, dtype=np.int64),
        "keys": block.keys,
        "values": block.values,
    }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, [save({**parts, "crc32": _checksum(parts)})], private=True)


def read_block(path: Path, ids: Sequence[int], cache: KVCache) -> Block:
    """Read a file and check that it holds these ids in the shape of a KV cache.

    Args:
        path: the file.
        ids: that it must hold.
        cache: that will take it over.

    Raises:
        OSError: it is not there.
        FormatError: it is damaged or not what its name says.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    shape = cache.shape_of(len(ids))
    size = path.stat().st_size
    if size > 2 * int(np.prod(shape)) + _MOST_HEADER:
        raise FormatError(f"{path} has {size} bytes, more than a prefix has; it is not used.")
    try:
        parts = load(path.read_bytes())
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise FormatError(f"{path} is damaged ({library_words(error)}); it is not used.") from None
    checksum = parts.pop("crc32", None)
    healthy = set(parts) == {"ids", "keys", "values"} and all(
        parts[name].shape == shape and parts[name].dtype == np.uint8 for name in ("keys", "values")
    )
    if not healthy or not np.array_equal(parts["ids"], np.asarray(ids, dtype=np.int64)):
        raise FormatError(f"{path} is not the prefix that its name says; it is not used.")
    if checksum is None or not np.array_equal(checksum, _checksum(parts)):
        raise FormatError(f"{path} is damaged (its checksum differs); it is not used.")
    return Block(ids, parts["keys"], parts["values"])


def _checksum(parts: dict[str, Numbers]) -> Numbers:
    total = 0
    for name in ("ids", "keys", "values"):
        total = zlib.crc32(np.ascontiguousarray(parts[name]).data, total)
    return np.array([total], dtype=np.uint32)
