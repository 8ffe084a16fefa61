"""Source: one model in somebody's format, read on demand: a lazy mapping from name to tensor.

Names are those of a transformers checkpoint whatever the format, and one tensor or some of its rows
are in memory at a time. Knows no file format and nothing of how weights are packed.
"""

from __future__ import annotations

import functools
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy.typing as npt

from converters.numbers.quantize import Quantized
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.errors import SourceError
from sparity_edge.model.families import read_config

Array = npt.NDArray[Any]

# What transformers calls the weights in a folder: one file, or shards and their index.
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class Source(ABC):
    """Weights, configuration and tokenizer of one model, read on demand.

    Usable as a context manager. `files` are the local files that `fingerprint` covers.
    """

    label: str  # what the user named
    config_json: dict[str, Any]  # content of config.json; made up from the metadata for a GGUF
    generation_config: dict[str, Any]  # content of generation_config.json, {} where there is none
    tokenizer_files: dict[str, bytes]  # those of TOKENIZER_FILES that there are
    files: tuple[Path, ...]
    checked = False  # whether its tensors have been compared with its configuration
    notes: Sequence[str] = ()  # sentences on what its files say and what is done otherwise
    card: Mapping[str, str] = MappingProxyType({})  # licence and base model, by `CARD_KEYS`

    @functools.cached_property
    def config(self) -> ModelConfig:
        """What `config_json` and `generation_config` say, parsed when it is first asked for.

        Raises:
            ConfigError: the model is of a kind that the decoder does not run.
        """
        return read_config(self.config_json, self.generation_config)

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the source by its checkpoint name; matrices are (outputs, inputs).

        Raises:
            SourceError: a file is damaged.
        """

    @abstractmethod
    def check_dtype(self, name: str) -> None:
        """Refuse a tensor whose number type cannot be read.

        Raises:
            SourceError: the number type of tensor `name` is not supported.
        """

    @abstractmethod
    def native(self, name: str) -> tuple[str, int, bool] | None:
        """(dtype, group, minimum) of the `Quantized` that `read` returns; None: it is an array."""

    @abstractmethod
    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array | Quantized:
        """Rows start:stop of a tensor, as an own copy.

        Args:
            name: a name of `shapes()`.
            start: first row.
            stop: one past the last row; None: all of them.

        Returns:
            A `Quantized` where `native(name)` says so, else an array (rows, ...) of dtype float32,
            float16 or bfloat16 (ml_dtypes).

        Raises:
            SourceError: the file is damaged.
        """

    def fingerprint(self) -> str:
        """SHA-256, in hex, of the contents of all `files`.

        Raises:
            SourceError: a file cannot be read.
        """
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(os.fsencode(path.name) + b"\0")
            digest.update(hash_file(path))
        return digest.hexdigest()

    def close(self) -> None:  # noqa: B027 - most sources hold nothing open
        """Let go of open files; the source must not be read afterwards."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def hash_file(path: Path) -> bytes:
    """SHA-256 of a file's content.

    Raises:
        SourceError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise unreadable(path, error) from error
    return digest.digest()


def unreadable(path: Path, error: OSError) -> SourceError:
    """The sentence for a file the system will not let us read."""
    return SourceError(
        f"{path}: cannot be read ({error.strerror or error}); check its permissions."
    )
