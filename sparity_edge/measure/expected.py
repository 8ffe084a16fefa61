"""What decoding a token has to read, found without loading a weight.

Decoding is bandwidth-bound: bytes a second over bytes of a token bounds tokens a second. Keys and
values are left out, so the bound is that of a short context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparity_edge.packed.shards import TensorSpec, spec_nbytes

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclass(frozen=True)
class Expected:
    """A model whose decoding speed is estimated."""

    name: str
    nbytes: int  # that a token reads
    packed: bool  # whether it is packed on this machine


def bytes_of_a_folder(path: Path) -> int:
    """Bytes that a token reads of a packed folder.

    Raises:
        FormatError, ConfigError: the folder is damaged.
    """
    from sparity_edge.model.opening import open_folder

    return bytes_of_a_token(
        {name: stored.spec for name, stored in open_folder(path).tensors.items()}
    )


def bytes_of_a_token(tensors: Mapping[str, TensorSpec]) -> int:
    """Bytes of all tensors but the embedding, of which one row is read, unless it is the head."""
    skipped = {EMBEDDING} if HEAD in tensors else set()
    return sum(spec_nbytes(spec) for name, spec in tensors.items() if name not in skipped)
