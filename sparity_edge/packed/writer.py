"""PackedWriter: stream a packed folder to disk, so that it appears complete or not at all.

The caller says beforehand which tensors come, in which layout; then headers are known and each
tensor goes straight to its shard in chunks. Knows nothing of where the bytes come from.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sparity_edge.errors import FormatError
from sparity_edge.packed.folder import HASH_BLOCK, shard_name
from sparity_edge.packed.manifest import (
    FORMAT_NAME,
    LOCK_FILE,
    MANIFEST,
    encode_manifest,
    is_packed,
    listed_files,
)
from sparity_edge.packed.shards import (
    FORMAT_VERSION,
    Packed,
    TensorSpec,
    build_header,
    damaged,
    shown,
    spec_nbytes,
)
from sparity_edge.system.atomic import AtomicFolder, one_sentence
from sparity_edge.system.disk import shortage
from sparity_edge.system.leftovers import is_leftover

MAX_SHARD_BYTES = 2 << 30
# What file managers drop into every folder they show, and what changing plans leaves.
_LITTER = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", LOCK_FILE})


class PackedWriter:
    """Context manager that writes one packed folder.

    Args:
        out: the folder to be made.
        tensors: what comes, by checkpoint name. Matrices and bundles are stored in this order,
            then vectors: so every matrix begins at a multiple of 64 bytes.
        source: what the model was made of, for the manifest.
        options: how it was made, for the manifest.
        notes: sentences on what was read otherwise than the source has it, for the manifest.
        card: what the source's card says of its licence, for the manifest.
        version: of the manifest; what the folder holds may be unknown to older readers.
        force: whether an existing packed folder (or empty folder) at `out` may be replaced.
        shard_bytes: size at which the next shard begins; a tensor is never split.

    Raises:
        FormatError: `out` exists, or cannot be written.
    """

    def __init__(
        self,
        out: Path,
        tensors: Mapping[str, TensorSpec],
        *,
        source: str,
        options: Mapping[str, Any],
        notes: Sequence[str] = (),
        card: Mapping[str, str] | None = None,
        version: int = FORMAT_VERSION,
        force: bool = False,
        shard_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        # sorted() is stable: the order of use is kept among matrices and among vectors.
        order = sorted(tensors, key=lambda name: not isinstance(tensors[name], Packed))
        self.tensors = {name: tensors[name] for name in order}
        self._folder = AtomicFolder(out, force=force, refuse_foreign=_refuse_foreign)
        self._out = self._folder.out
        self._shards = _split(self.tensors, shard_bytes)
        self._manifest: dict[str, Any] = {
            "format": FORMAT_NAME,
            "version": version,
            "source": source,
            "options": dict(options),
            **({"notes": list(notes)} if notes else {}),
            **({"card": dict(card)} if card else {}),
            "files": {},
        }
        self._pending = list(self._shards)  # shards not begun
        self._expected: list[tuple[str, int]] = []  # tensors of the open shard, bytes missing
        self._file: BinaryIO | None = None
        self._name = ""
        self._size = 0
        self._digest = hashlib.sha256()

    def __enter__(self) -> PackedWriter:
        self._folder.__enter__()
        total = sum(spec_nbytes(spec) for spec in self.tensors.values())
        try:
            self._refuse_small_disk(total)
        except BaseException:
            self._folder.__exit__(None, None, None)
            raise
        return self

    def add_file(self, name: str, content: bytes) -> None:
        """Write a small file such as config.json."""
        self._begin(name)
        self._append(content)
        self._end()

    def copy_file(self, path: Path, sha256: str) -> None:
        """Copy a file whose content has that SHA-256, in hex.

        Raises:
            FormatError: it is missing or has another content.
        """
        self._begin(path.name)
        try:
            with path.open("rb") as file:
                while block := file.read(HASH_BLOCK):
                    self._append(block)
        except OSError as error:
            raise damaged(path, f"cannot be read ({error.strerror or error})") from error
        if self._digest.hexdigest() != sha256:
            raise damaged(path, "does not match its SHA-256 in the manifest")
        self._end()

    def write(self, name: str, data: npt.NDArray[Any]) -> None:
        """Append a chunk of tensor `name`; tensors come in the order of `tensors`.

        Args:
            name: its checkpoint name.
            data: the next bytes (uint8 of a matrix, float32 of a vector), contiguous.
        """
        if not self._expected:
            self._begin_shard()
        expected, missing = self._expected[0]
        assert name == expected, f"{name} came where {expected} was due"
        assert data.nbytes <= missing, f"{name} is longer than its layout"
        self._append(data.reshape(-1).view(np.uint8).data)
        if data.nbytes < missing:
            self._expected[0] = (name, missing - data.nbytes)
            return
        del self._expected[0]
        if not self._expected:
            self._end()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._file is not None:
                # A full disk fails once more while closing.
                with contextlib.suppress(OSError):
                    self._file.close()
            self._folder.__exit__(kind, error, traceback)

    def _finish(self) -> None:
        assert not self._pending, "shards are missing"
        assert not self._expected, "tensors are missing"
        self._begin(MANIFEST)
        self._append(encode_manifest(self._manifest))
        self._end()
        self._folder.commit()

    def _begin_shard(self) -> None:
        shard = self._pending.pop(0)
        index = len(self._shards) - len(self._pending) - 1
        self._begin(shard_name(index, len(self._shards)))
        self._append(build_header(shard))
        self._expected = [(name, spec_nbytes(spec)) for name, spec in shard.items()]

    def _begin(self, name: str) -> None:
        self._name, self._size, self._digest = name, 0, hashlib.sha256()
        with one_sentence(self._out):
            self._file = (self._folder.temporary / name).open("xb")

    def _append(self, data: bytes | memoryview) -> None:
        assert self._file is not None
        with one_sentence(self._out):
            self._file.write(data)
        self._digest.update(data)
        self._size += len(data)

    def _end(self) -> None:
        assert self._file is not None
        with one_sentence(self._out):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        self._file = None
        entry = {"size": self._size, "sha256": self._digest.hexdigest()}
        self._manifest["files"][self._name] = entry

    def _refuse_small_disk(self, total: int) -> None:
        if missing := shortage(self._folder.temporary, total):
            raise FormatError(
                f"{self._out} cannot be written: {missing}; free some space or choose another "
                "folder."
            )


def _split(tensors: Mapping[str, TensorSpec], shard_bytes: int) -> list[dict[str, TensorSpec]]:
    shards: list[dict[str, TensorSpec]] = [{}]
    size = 0
    for name, spec in tensors.items():
        nbytes = spec_nbytes(spec)
        if shards[-1] and size + nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = spec
        size += nbytes
    return shards


def _refuse_foreign(out: Path) -> None:
    """Refuse to replace what is neither an empty folder nor a packed model and nothing else.

    Raises:
        FormatError: replacing `out` could destroy something.
    """
    if not out.is_dir():
        raise FormatError(f"{out} is a file, not a packed model; choose another name.")
    with one_sentence(out):
        present = {entry.name for entry in os.scandir(out)} - _LITTER
        known = listed_files(out) if is_packed(out) else set()
        known |= {name for name in present if is_leftover(out / name)}
    if surplus := present - known:
        raise FormatError(
            f"{out} holds {shown(min(surplus))}, which no packed model there lists, and is not "
            "replaced; choose another name or remove it yourself."
        )
