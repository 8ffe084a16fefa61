"""Rotation in config.json: the one key that a rotated packed folder adds to its model's own.

The weights of a rotated folder are folded with orthogonal matrices, so that the residual stream is
seen in another basis (`converters.rotation` says how). Knows nothing of those matrices.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparity_edge.choices import ROTATIONS
from sparity_edge.config.values import show
from sparity_edge.errors import ConfigError

ROTATION_KEY = "sparity_edge_rotation"
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Rotation:
    """In which bases the residual stream is."""

    kind: str  # one of ROTATIONS
    basis: str  # SHA-256, in hex, of the orthogonal matrices

    @property
    def adapters(self) -> bool:
        """Whether a residual adapter stands between layers, which have a basis each."""
        return self.kind == "layers"


def rotation(config: Mapping[str, Any]) -> Rotation | None:
    """What config.json says of a rotation; None: the weights are not rotated.

    Raises:
        ConfigError: the key is there and does not hold what it should.
    """
    value = config.get(ROTATION_KEY)
    if value is None:
        return None
    if isinstance(value, Mapping) and set(value) == {"kind", "basis"}:
        kind, basis = value["kind"], value["basis"]
        if kind in ROTATIONS and isinstance(basis, str) and _SHA256.fullmatch(basis):
            return Rotation(kind, basis)
    raise ConfigError(
        f"config.json: {ROTATION_KEY}={show(value)} is not a kind ({' or '.join(ROTATIONS)}) and "
        "the SHA-256 of a basis; rotate the model again."
    )
