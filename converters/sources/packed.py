"""PackedSource: a packed folder as a source, to store it again in another layout.

Integers, their scales and floats come out as they are stored, so that changing the layout changes
no value; bundles come out as the two matrices they hold. Some rows at a time are read through file
mappings; nothing is held whole.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.numbers.bundle_bytes import read_down, read_up
from converters.numbers.layout_bytes import unpack_matrix
from converters.numbers.quantize import Quantized
from converters.sources.source import Source, unreadable
from sparity_edge.model.opening import open_folder
from sparity_edge.packed.bundle import BundleLayout, halves_of
from sparity_edge.packed.layout import Layout
from sparity_edge.packed.manifest import card_in, notes_in
from sparity_edge.packed.shards import PLAN_FILE, Stored
from sparity_edge.text.tokenizer_files import TOKENIZER_FILES


class PackedSource(Source):
    """The model in a packed folder.

    Args:
        path: the folder.
        label: what the user named; None: the folder.

    Raises:
        FormatError, ConfigError: the folder is damaged or of another version.
        SourceError: a file cannot be read.
    """

    checked = True

    def __init__(self, path: Path, label: str | None = None) -> None:
        self._folder = open_folder(path)
        self.label = label or str(path)
        self.config_json = self._folder.config_json
        self.config = self._folder.config
        self.generation_config = self._folder.generation_config
        self.notes = notes_in(self._folder.manifest)
        self.card = card_in(self._folder.manifest)
        self._where: dict[str, Stored] = {}
        self._specs: dict[str, Layout | tuple[int, ...]] = {}
        for name, stored in self._folder.tensors.items():
            self._list(name, stored)
        listed = self._folder.manifest["files"]
        self.files = tuple(path / name for name in listed)
        # Plans of the folder with the SHA-256 that the manifest gives each.
        self.plans = {
            path / name: str(entry["sha256"])
            for name, entry in listed.items()
            if PLAN_FILE.fullmatch(name)
        }
        self.tokenizer_files = {
            name: _read_file(path / name) for name in TOKENIZER_FILES if name in listed
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """As `Source.shapes`."""
        return {
            name: spec.shape if isinstance(spec, Layout) else spec
            for name, spec in self._specs.items()
        }

    def check_dtype(self, name: str) -> None:
        """Every number format of a packed folder can be read."""

    def native(self, name: str) -> tuple[str, int, bool] | None:
        """As `Source.native`; for f32 and bf16 matrices too, which `read` returns as float32."""
        spec = self._specs[name]
        if not isinstance(spec, Layout):
            return None
        return spec.dtype, spec.group, spec.minimum

    def read(
        self, name: str, start: int = 0, stop: int | None = None
    ) -> npt.NDArray[Any] | Quantized:
        """As `Source.read`."""
        stored, spec = self._where[name], self._specs[name]
        data = _map(stored)
        if not isinstance(spec, Layout):
            return data.view("<f4")[start:stop].copy()
        if isinstance(stored.spec, BundleLayout):
            read = read_up if spec is stored.spec.up else read_down
            content: npt.NDArray[Any] | Quantized = read(
                data, stored.spec, start, spec.shape[0] if stop is None else stop
            )
            return content
        return unpack_matrix(data, spec, start, stop)

    def fingerprint(self) -> str:
        """SHA-256 over the manifest's list of files, which holds the SHA-256 of each."""
        listed = json.dumps(self._folder.manifest["files"], sort_keys=True)
        return hashlib.sha256(listed.encode()).hexdigest()

    def _list(self, name: str, stored: Stored) -> None:
        """Note where the tensor, or the two matrices of a bundle, can be read."""
        if not isinstance(stored.spec, BundleLayout):
            self._where[name], self._specs[name] = stored, stored.spec
            return
        up, down = halves_of(name)
        self._where[up] = self._where[down] = stored
        self._specs[up], self._specs[down] = stored.spec.up, stored.spec.down


def _map(stored: Stored) -> npt.NDArray[np.uint8]:
    try:
        mapped = np.memmap(stored.shard, np.uint8, "r", stored.offset, (stored.nbytes,))
    except OSError as error:
        raise unreadable(stored.shard, error) from error
    return mapped.view(np.ndarray)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
