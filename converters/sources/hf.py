"""A folder as transformers writes it: config.json, tokenizer.json and safetensors.

Single and sharded checkpoints in F32, F16 and BF16; matrices in other numbers are read by
`quantised`. The safetensors library checks headers, offsets and sizes; this module checks what
stands around them. Pickled weights are never opened. It knows nothing of the network.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - importing it is what teaches NumPy the dtype bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open

from converters.numbers.quantize import Quantized
from converters.sources.card import card_of_folder
from converters.sources.claims import (
    absent_biases,
    head_differs,
    stored_names,
    without_absent_biases,
)
from converters.sources.quantised import KEYS, open_quantised
from converters.sources.quantised.grid import Matrix
from converters.sources.shard_index import read_bounded, read_object, shard_names
from converters.sources.source import INDEX, SINGLE, Array, Source
from sparity_edge.config.nested import is_nested, text_config, text_name
from sparity_edge.errors import SourceError, library_words
from sparity_edge.text.tokenizer_files import (
    CONFIG_FILE,
    MAX_BYTES,
    MODEL_FILE,
    TEMPLATE_FILE,
    TOKENIZER_FILE,
    TOKENIZER_FILES,
    template_of,
)

MAX_PIECES_BYTES = 64 << 20  # the largest one in use has 4 MB, for 262,144 pieces
DTYPES = ("F32", "F16", "BF16")


class HuggingFaceSource(Source):
    """A Hugging Face folder; `identity` (a commit) replaces hashing gigabytes of weights."""

    def __init__(self, folder: Path, label: str, identity: str | None = None) -> None:
        """Read the small files and the headers of the shards.

        Raises:
            SourceError: a file is missing, damaged or refused.
        """
        self.label, self._folder, self._identity = label, folder, identity
        _refuse_other_folders(folder, label)
        self.config_json = read_object(folder / "config.json")
        self.generation_config = _optional_object(folder / "generation_config.json")
        self.card = card_of_folder(folder)
        self.notes: list[str] = []
        self.tokenizer_files = _read_tokenizer(folder, label, self.notes.append)
        shards = _shards(folder, label)
        self._slices: dict[str, Any] = {}
        self._zeros: dict[str, tuple[int, ...]] = {}
        for path in shards:  # of a tensor in two shards the last one counts, as in transformers
            self._slices.update(_open_shard(path))
        quantised = open_quantised(self.config_json, shards, label)
        self._matrices: dict[str, Matrix] = quantised.matrices
        self.notes += quantised.notes
        self.config_json = {k: v for k, v in self.config_json.items() if k not in KEYS}
        for name in (*quantised.parts, *quantised.matrices):
            self._slices.pop(name, None)
        if is_nested(self.config_json):
            self._take_text_model()
        self._settle()
        present = (folder / name for name in (*TOKENIZER_FILES, MODEL_FILE, *_JSON_FILES))
        self.files = tuple(path for path in (*sorted(present), *shards) if path.is_file())

    def _take_text_model(self) -> None:
        """Leave out what a model of text and images has beside its decoder."""
        self.config_json = dict(text_config(self.config_json))
        every = len(self._slices) + len(self._matrices)
        self._slices, self._matrices = _of_text(self._slices), _of_text(self._matrices)
        if others := every - len(self._slices) - len(self._matrices):
            self.notes.append(f"{others} tensors of the part for images are not read.")

    def _settle(self) -> None:
        """Take the tensors as transformers does where config.json claims something else of them."""
        claimed = self.config_json
        self.config_json = without_absent_biases(claimed, self._slices)
        if self.config_json != claimed:
            self.notes.append("config.json asks for biases, but none are stored; there are none.")
        tied = self.config.tie_word_embeddings
        names = stored_names({**self._slices, **self._matrices}, tied).items()
        self._slices = {name: self._slices[own] for name, own in names if own in self._slices}
        self._matrices = {name: self._matrices[own] for name, own in names if own in self._matrices}
        if tied and head_differs(self.shapes(), self._floats):
            self.config_json = {**self.config_json, "tie_word_embeddings": False}
            del self.config  # it is parsed anew
            self.notes.append("config.json says that the head is tied, but the file's own is used.")
        self._zeros = absent_biases(self.config, self._slices)
        if self._zeros:
            self.notes.append(
                f"config.json asks for {len(self._zeros)} biases that are not stored, such as "
                f"{next(iter(self._zeros))}; they are taken to be 0."
            )

        self._leave_out_zero_biases()

    def _leave_out_zero_biases(self) -> None:
        """Quantised linears may have biases of nothing but zeros where the model has none."""
        expected = self.config.tensor_shapes()
        for name in self._matrices:
            bias = name.removesuffix(".weight") + ".bias"
            if bias in self._slices and bias not in expected and not self._floats(bias).any():
                del self._slices[bias]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        stored = {name: tuple(piece.get_shape()) for name, piece in self._slices.items()}
        matrices = {name: matrix.shape for name, matrix in self._matrices.items()}
        return {**stored, **matrices, **self._zeros}

    def check_dtype(self, name: str) -> None:
        if name in self._zeros or name in self._matrices:
            return
        dtype = self._slices[name].get_dtype()
        if dtype not in DTYPES:
            raise SourceError(
                f"{self.label}: tensor {name} has dtype {dtype}, which is not supported; use a "
                f"checkpoint in {', '.join(DTYPES)}."
            )

    def native(self, name: str) -> tuple[str, int, bool] | None:
        return self._matrices[name].native if name in self._matrices else None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array | Quantized:
        if name in self._zeros:
            return np.zeros(self._zeros[name], np.float32)[start:stop]
        if matrix := self._matrices.get(name):
            rows = matrix.shape[0]
            return matrix.read(start, rows if stop is None else min(stop, rows))
        piece = self._slices[name]
        rows = piece.get_shape()[0]
        try:
            return np.array(piece[start : rows if stop is None else min(stop, rows)])
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            raise SourceError(
                f"{self.label}: tensor {name} cannot be read ({library_words(error)}); "
                "fetch the file again."
            ) from error

    def _floats(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        content = self.read(name, start, stop)
        return content.dequantize() if isinstance(content, Quantized) else content

    def fingerprint(self) -> str:
        if self._identity is None:
            return super().fingerprint()
        return hashlib.sha256(self._identity.encode()).hexdigest()

    def close(self) -> None:
        self._slices.clear()
        self._matrices.clear()


def _of_text(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the decoder, by their names in a model of text alone."""
    named = ((text_name(name), each) for name, each in tensors.items())
    return {name: each for name, each in named if name is not None}


_JSON_FILES = ("config.json", "generation_config.json", INDEX)


def _refuse_other_folders(folder: Path, label: str) -> None:
    if (folder / "sparity.json").is_file():
        raise SourceError(f"{label}: this folder is packed already; run it as it is.")
    if (folder / "config.json").is_file():
        return
    ggufs = sorted(path.name for path in folder.glob("*.gguf"))
    if ggufs:
        raise SourceError(f"{label}: name the GGUF file itself, for example {folder / ggufs[0]}.")
    _refuse_original_layout(folder, label)
    raise SourceError(
        f"{label}: the folder has no config.json, so it is not a Hugging Face model; "
        "fetch the complete folder."
    )


def _refuse_original_layout(folder: Path, label: str) -> None:
    """Refuse what Meta or Mistral published beside the files for transformers."""
    patterns = ("consolidated*.pth", "consolidated*.safetensors", "original/consolidated*.pth")
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    if not found and not (folder / "params.json").is_file():
        return
    first = f" ({found[0].relative_to(folder)})" if found else ""
    pickled = found and found[0].suffix == ".pth"
    raise SourceError(
        f"{label}: this is the publisher's original layout{first}"
        + (", whose weights are pickled, which is unsafe to read" if pickled else "")
        + "; fetch the files for transformers from the same repository: config.json, "
        "tokenizer.json and the safetensors that model.safetensors.index.json names."
    )


def _optional_object(path: Path) -> dict[str, Any]:
    return read_object(path) if path.is_file() else {}


def _read_tokenizer(folder: Path, label: str, notify: Callable[[str], None]) -> dict[str, bytes]:
    path, pieces = folder / TOKENIZER_FILE, folder / MODEL_FILE
    if not path.is_file() and not pieces.is_file():
        raise SourceError(
            f"{label}: the folder holds no tokenizer, neither {TOKENIZER_FILE} nor {MODEL_FILE}; "
            "fetch the complete folder."
        )
    files = {
        name: read_bounded(folder / name, most)
        for name, most in MAX_BYTES.items()
        if (folder / name).is_file()
    }
    config = _optional_object(folder / CONFIG_FILE)
    if path.is_file():
        read_object(path)
    else:
        from converters.sources.pieces.files import files_of_pieces

        content = read_bounded(pieces, MAX_PIECES_BYTES)
        files |= files_of_pieces(content, pieces, config, notify)
    template = template_of(files, config)
    if template is not None:
        files.setdefault(TEMPLATE_FILE, template.encode())
    return files


def _shards(folder: Path, label: str) -> list[Path]:
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return _indexed_shards(folder, label)
    _refuse_original_layout(folder, label)
    pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pth"))
    raise SourceError(
        f"{label}: there is neither {SINGLE} nor {INDEX} in the folder; "
        + (
            "its weights are pickled, which is unsafe to read: convert them to safetensors."
            if pickled
            else "fetch the complete folder."
        )
    )


def _indexed_shards(folder: Path, label: str) -> list[Path]:
    names = shard_names(folder / INDEX)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise SourceError(
            f"{label}: {len(missing)} of {len(names)} shards are missing, the first is "
            f"{missing[0]}; fetch the complete folder."
        )
    return [folder / name for name in names]


def _open_shard(path: Path) -> dict[str, Any]:
    """Lazy slices of a shard; each keeps the file mapped for as long as it lives."""
    try:
        file: Any = safe_open(path, framework="np")
        return {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise SourceError(
            f"{path}: not a valid safetensors file ({library_words(error)}); fetch it again."
        ) from error
