"""A key-value cache on disk, so that a long prompt need not be read again after a restart.

A safetensors file: keys and values of the positions in use, the token ids, and which packed model
they belong to. Checked before anything is taken over.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from sparity_edge.atomic import one_sentence
from sparity_edge.cache import Cache
from sparity_edge.errors import ContextError, FormatError
from sparity_edge.kernels.buffers import Numbers
from sparity_edge.manifest import MANIFEST

_VERSION = "1"


def save(cache: Cache, path: str | Path, model: Path) -> None:
    """Write a cache; `model` is the packed folder it belongs to.

    Raises:
        FormatError: the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    used = len(cache)
    content = to_bytes(
        {
            "ids": np.array(cache.ids, dtype=np.int64),
            # As bits: bfloat16 is no type of NumPy's own.
            "keys": _bits(np.ascontiguousarray(cache.keys[:, :, :used])),
            "values": _bits(np.ascontiguousarray(cache.values[:, :, :used])),
        },
        metadata={"sparity_edge_cache": _VERSION, "model": _fingerprint(model)},
    )
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial")
    with one_sentence(target):
        try:
            partial.write_bytes(content)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def load(cache: Cache, path: str | Path, model: Path) -> None:
    """Replace the content of a cache by that of a file.

    Raises:
        FormatError: the file is missing, damaged or belongs to another model.
        ContextError: it holds more positions than the cache may.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in ("ids", "keys", "values")}
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise FormatError(f"{path} is no saved cache ({reason}); save it again.") from None
    if metadata.get("sparity_edge_cache") != _VERSION or metadata.get("model") != _fingerprint(
        model
    ):
        raise FormatError(f"{path} was saved with another model or version; save it again.")
    ids, keys, values = tensors["ids"], tensors["keys"], tensors["values"]
    bits = _bits(cache.keys).dtype
    layers, heads, _, head_dim = cache.keys.shape
    shape = (layers, heads, ids.size, head_dim)
    healthy = all(each.shape == shape and each.dtype == bits for each in (keys, values))
    if ids.ndim != 1 or ids.dtype != np.int64 or not healthy:
        raise FormatError(f"{path} is no cache of this model; save it again.")
    if ids.size > cache.max_context:
        raise ContextError(
            f"{path} holds {ids.size} positions and the context {cache.max_context}; "
            "raise the context with --max-context."
        )
    cache.trim(0)
    cache.reserve(ids.size)
    cache.keys[:, :, : ids.size] = keys.view(cache.keys.dtype)
    cache.values[:, :, : ids.size] = values.view(cache.values.dtype)
    cache.ids.extend(ids.tolist())


def _bits(numbers: Numbers) -> Numbers:
    return numbers.view(f"<u{numbers.itemsize}")


def _fingerprint(model: Path) -> str:
    """Of the manifest, which holds the checksums of all files."""
    return hashlib.sha256((model / MANIFEST).read_bytes()).hexdigest()
