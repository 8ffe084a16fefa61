"""A folder as transformers writes it: config.json, tokenizer.json and safetensors.

Single and sharded checkpoints in F32, F16 and BF16. The safetensors library checks headers,
offsets and sizes; this module checks what stands around them: the index, the names of shards, the
sizes of JSON files. Pickled weights are never opened. It knows nothing of the network.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - importing it is what teaches NumPy the dtype bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open

from converters.sources.source import INDEX, SINGLE, Array, Source, unreadable
from sparity_edge.errors import SourceError

DTYPES = ("F32", "F16", "BF16")
# The largest known tokenizer.json has 34 MB, the largest index 10 MB.
MAX_JSON_BYTES = 128 << 20
MAX_TEMPLATE_BYTES = 1 << 20


class HuggingFaceSource(Source):
    """A Hugging Face folder; `identity` (a commit) replaces hashing gigabytes of weights."""

    def __init__(self, folder: Path, label: str, identity: str | None = None) -> None:
        """Read the small files and the headers of the shards.

        Raises:
            SourceError: a file is missing, damaged or refused.
        """
        self.label, self._folder, self._identity = label, folder, identity
        _refuse_other_folders(folder, label)
        self.config_json = _read_object(folder / "config.json")
        _refuse_quantized(self.config_json, label)
        self.generation_config = _read_object(folder / "generation_config.json", optional=True)
        self.tokenizer_files = _read_tokenizer(folder, label)
        shards = _shards(folder, label)
        self._slices: dict[str, Any] = {}
        for path, names in shards.items():
            self._slices.update(_open_shard(path, names))
        present = (folder / name for name in (*self.tokenizer_files, *_JSON_FILES))
        self.files = tuple(path for path in (*sorted(present), *sorted(shards)) if path.is_file())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(piece.get_shape()) for name, piece in self._slices.items()}

    def check_dtype(self, name: str) -> None:
        dtype = self._slices[name].get_dtype()
        if dtype not in DTYPES:
            raise SourceError(
                f"{self.label}: tensor {name} has dtype {dtype}, which is not supported; use a "
                f"checkpoint in {', '.join(DTYPES)}."
            )

    def native(self, name: str) -> None:  # noqa: ARG002 - a checkpoint holds no quantised numbers
        return None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        piece = self._slices[name]
        rows = piece.get_shape()[0]
        try:
            return np.array(piece[start : rows if stop is None else stop])
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            raise SourceError(f"{self.label}: tensor {name} cannot be read ({error}).") from error

    def fingerprint(self) -> str:
        if self._identity is None:
            return super().fingerprint()
        return hashlib.sha256(self._identity.encode()).hexdigest()

    def close(self) -> None:
        self._slices.clear()


_JSON_FILES = ("config.json", "generation_config.json", INDEX)


def _refuse_other_folders(folder: Path, label: str) -> None:
    if (folder / "sparity.json").is_file():
        raise SourceError(f"{label}: this folder is packed already; run it as it is.")
    if (folder / "config.json").is_file():
        return
    ggufs = sorted(path.name for path in folder.glob("*.gguf"))
    if ggufs:
        raise SourceError(f"{label}: name the GGUF file itself, for example {folder / ggufs[0]}.")
    raise SourceError(
        f"{label}: the folder has no config.json, so it is not a Hugging Face model; "
        "fetch the complete folder."
    )


def _refuse_quantized(config: dict[str, Any], label: str) -> None:
    block = config.get("quantization_config")
    if block is not None:
        method = block.get("quant_method") if isinstance(block, dict) else block
        raise SourceError(
            f"{label}: config.json has quantization_config with quant_method={method!r}, which is "
            "not supported; use the unquantised checkpoint or a GGUF file."
        )


def read_bounded(path: Path, limit: int) -> bytes:
    """Content of a file of at most `limit` bytes.

    Raises:
        SourceError: the file cannot be read or is larger.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) > limit:
        raise SourceError(f"{path}: larger than {limit} bytes, so it is not what its name says.")
    return content


def _parse(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:  # bad UTF-8 is a ValueError too
        raise SourceError(f"{path}: not valid JSON ({error}); fetch the file again.") from error
    if not isinstance(value, dict):
        raise SourceError(f"{path}: not a JSON object; fetch the file again.")
    return value


def _read_object(path: Path, *, optional: bool = False) -> dict[str, Any]:
    if optional and not path.is_file():
        return {}
    return _parse(path, read_bounded(path, MAX_JSON_BYTES))


def _read_tokenizer(folder: Path, label: str) -> dict[str, bytes]:
    path = folder / "tokenizer.json"
    if not path.is_file():
        held = "only tokenizer.model" if (folder / "tokenizer.model").is_file() else "no tokenizer"
        raise SourceError(
            f"{label}: the folder holds {held}, but tokenizer.json is needed; save it with "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) of transformers."
        )
    files = {"tokenizer.json": read_bounded(path, MAX_JSON_BYTES)}
    _parse(path, files["tokenizer.json"])
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        files[settings.name] = read_bounded(settings, MAX_JSON_BYTES)
    template = _chat_template(folder, _parse(settings, files.get(settings.name, b"{}")))
    if template is not None:
        files["chat_template.jinja"] = template
    return files


def _chat_template(folder: Path, settings: dict[str, Any]) -> bytes | None:
    """The template of either place; the file wins, as in transformers."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return read_bounded(path, MAX_TEMPLATE_BYTES)
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {item.get("name"): item.get("template") for item in template if _is_named(item)}
        template = named.get("default")
    if template is None:
        return None
    if not isinstance(template, str) or len(template) > MAX_TEMPLATE_BYTES:
        raise SourceError(
            f"{folder / 'tokenizer_config.json'}: chat_template is neither a text of at most "
            f"{MAX_TEMPLATE_BYTES} characters nor a list of named templates; remove it."
        )
    return template.encode("utf-8", "surrogatepass")


def _is_named(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str)


def _shards(folder: Path, label: str) -> dict[Path, list[str] | None]:
    """Shard files with the names each must hold; None: whatever it holds."""
    if (folder / SINGLE).is_file():
        return {folder / SINGLE: None}
    if (folder / INDEX).is_file():
        return _indexed_shards(folder, label)
    pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pth"))
    raise SourceError(
        f"{label}: there is neither {SINGLE} nor {INDEX} in the folder; "
        + (
            "its weights are pickled, which is unsafe to read: convert them to safetensors."
            if pickled
            else "fetch the complete folder."
        )
    )


def _indexed_shards(folder: Path, label: str) -> dict[Path, list[str] | None]:
    weight_map = _read_object(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise SourceError(f"{folder / INDEX}: weight_map is missing; fetch the file again.")
    shards: dict[str, list[str]] = {}
    for tensor, name in weight_map.items():
        if not _is_plain_name(name):
            raise SourceError(
                f"{folder / INDEX}: tensor {tensor} is said to be in {name!r}, which is not the "
                "plain name of a safetensors file in this folder."
            )
        shards.setdefault(name, []).append(tensor)
    missing = sorted(name for name in shards if not (folder / name).is_file())
    if missing:
        raise SourceError(
            f"{label}: {len(missing)} of {len(shards)} shards are missing, the first is "
            f"{missing[0]}; fetch the complete folder."
        )
    return {folder / name: tensors for name, tensors in shards.items()}


def _is_plain_name(name: object) -> bool:
    return (
        isinstance(name, str)
        and name.endswith(".safetensors")
        and not name.startswith(".")
        and not any(character in "/\\:" or ord(character) < 32 for character in name)
    )


def _open_shard(path: Path, names: list[str] | None) -> dict[str, Any]:
    """Lazy slices of a shard; each keeps the file mapped for as long as it lives."""
    try:
        file: Any = safe_open(path, framework="np")
        held = set(file.keys())
        for name in names or ():
            if name not in held:
                raise SourceError(
                    f"{path}: tensor {name} is not in it, though {INDEX} says so; "
                    "fetch the folder again."
                )
        return {name: file.get_slice(name) for name in names or held}
    except (SafetensorError, OSError, ValueError) as error:
        raise SourceError(
            f"{path}: not a valid safetensors file ({error}); fetch it again."
        ) from error
