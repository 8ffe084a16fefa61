"""Recordings: forward passes over one token a row, kept for the next token of the same shape.

Those over a few tokens of one sequence or of several come in many shapes, so that the latest of
them are kept only. Knows nothing of what a pass computes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sparity_edge.model.forward_pass import ForwardPass
from sparity_edge.model.kv_cache import KVCache

FEW_KEPT = 8  # recordings of passes over a few tokens of a sequence


def runs_of(caches: Sequence[KVCache]) -> tuple[int, ...]:
    """How many rows follow each other in each KV cache; empty where all have one.

    Args:
        caches: of each row.
    """
    found = tuple(len(list(rows)) for _, rows in itertools.groupby(caches, key=id))
    return found if len(found) < len(caches) else ()


class PassKey(NamedTuple):
    """What recordings of passes over one token a row differ by."""

    sparse: bool  # whether the plan applies
    rows: int
    outputs: int
    screened: bool  # whether the head is
    runs: tuple[int, ...]  # rows of each sequence, where one has several; else empty


class Recordings(dict[PassKey, ForwardPass]):
    """Forward passes that were recorded, latest last."""

    def get_or_make(self, key: PassKey, make: Callable[[], ForwardPass]) -> ForwardPass:
        """The pass of a key, made by `make` if it is not there; the latest from now on."""
        known = self.pop(key, None) or make()
        self[key] = known
        for old in [each for each in self if each.runs][:-FEW_KEPT]:
            del self[old]
        return known

    def keep(self, wanted: Callable[[PassKey, ForwardPass], bool]) -> None:
        """Let go of all that are not wanted."""
        for key in [key for key, each in self.items() if not wanted(key, each)]:
            del self[key]
