"""All logits of a text that a model reads some tokens a call, which must not change them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparity_edge.arrays import Floats
from sparity_edge.model.model import Model


def all_logits(model: Model, ids: Sequence[int], step: int, *, sparse: bool = False) -> Floats:
    """(positions, vocab_size), reading `step` tokens a call from an empty KV cache."""
    model.kv_cache.trim(0)
    parts = [
        np.array(part)
        for start in range(0, len(ids), step)
        for part in model.read_all_logits(ids[start : start + step], sparse=sparse)
    ]
    return np.concatenate(parts)
