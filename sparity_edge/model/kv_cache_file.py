"""A KV cache on disk, so that a long prompt need not be read again after a restart.

A safetensors file: keys and values of the positions in use as the bytes of their rows, the token
ids, and which packed model and number format they belong to. Checked before anything is taken over.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np

from sparity_edge.errors import ContextError, FormatError, library_words
from sparity_edge.model.kv_cache import KVCache
from sparity_edge.packed.manifest import MANIFEST
from sparity_edge.system.atomic import one_sentence, replace_file

_VERSION = "2"


def save(cache: KVCache, path: str | Path, model: Path) -> None:
    """Write a KV cache; `model` is the packed folder it belongs to.

    Raises:
        FormatError: the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    keys, values = cache.rows(0, len(cache))
    content = to_bytes(
        {"ids": np.array(cache.ids, dtype=np.int64), "keys": keys, "values": values},
        metadata={
            "sparity_edge_cache": _VERSION,
            "model": _fingerprint(model),
            "dtype": cache.dtype,
            "stretch": str(cache.stretch),
        },
    )
    target = Path(path)
    with one_sentence(target):
        replace_file(target, [content])


def load(cache: KVCache, path: str | Path, model: Path) -> None:
    """Replace the content of a KV cache by that of a file.

    Raises:
        FormatError: the file is missing, damaged or belongs to another model.
        ContextError: it holds more positions than the KV cache may.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in ("ids", "keys", "values")}
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path} is no saved KV cache ({library_words(error)}); save it again."
        ) from None
    if metadata.get("sparity_edge_cache") != _VERSION or metadata.get("model") != _fingerprint(
        model
    ):
        raise FormatError(f"{path} was saved with another model or version; save it again.")
    if metadata.get("dtype") != cache.dtype:
        raise FormatError(
            f"{path} holds keys and values in another number format than {cache.dtype}; "
            "save it again, or load the model with the cache_dtype it was saved with."
        )
    ids, keys, values = tensors["ids"], tensors["keys"], tensors["values"]
    shape = cache.shape_of(ids.size)
    healthy = all(each.shape == shape and each.dtype == np.uint8 for each in (keys, values))
    if ids.ndim != 1 or ids.dtype != np.int64 or not healthy:
        raise FormatError(f"{path} is no KV cache of this model; save it again.")
    if ids.size and not (ids.min() >= 0 and ids.max() < cache.vocab_size):
        raise FormatError(
            f"{path} holds token ids outside of 0 to {cache.vocab_size - 1}, the model's "
            "vocabulary; save it again."
        )
    if ids.size > cache.max_context:
        raise ContextError(
            f"{path} holds {ids.size} positions and the context {cache.max_context}; "
            f"{cache.how_to_fit(ids.size, 'text')}."
        )
    stretch = _stretch(metadata.get("stretch", "0"), path)
    cache.trim(0)
    cache.reserve(ids.size)
    cache.stretch = stretch
    cache.put(0, keys, values)
    cache.append(ids.tolist(), as_prompt=False)  # some of it may have been decoded


def _stretch(text: str, path: str | Path) -> int:
    """What a file says of how its keys were rotated; nothing, where there is one way only."""
    if not re.fullmatch(r"-?\d{1,9}", text, re.ASCII):
        raise FormatError(f"{path} is damaged: stretch={text[:40]!r}; save it again.")
    return int(text)


def _fingerprint(model: Path) -> str:
    """Of the manifest of a packed folder, which holds the checksums of all files."""
    return hashlib.sha256((model / MANIFEST).read_bytes()).hexdigest()
