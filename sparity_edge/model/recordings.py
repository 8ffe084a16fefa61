"""Recordings: forward passes over one token a row, kept for the next token of the same shape.

Those over a few tokens of one sequence or of several come in many shapes, so that the latest of
them are kept only. Knows nothing of what a pass computes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sparity_edge.model.applied_plan import AppliedPlan
from sparity_edge.model.forward_pass import ForwardPass
from sparity_edge.model.kv_cache import KVCache

ALONE_KEPT = 8  # recordings of passes over one token, by the KV cache and the plan
FEW_KEPT = 8  # recordings of passes over a few tokens of a sequence
SPARE = -1  # in place of the identity of a KV cache that is over


class PassKey(NamedTuple):
    """What recordings of passes over one token a row differ by."""

    plan: AppliedPlan | None  # that is followed
    rows: int
    outputs: int
    screened: bool  # whether the head is
    runs: tuple[int, ...]  # rows of each sequence, where one has several; else empty
    cache: int  # identity of the only one of a single row, beside others that are read in turn


def key_of(
    plan: AppliedPlan | None, caches: Sequence[KVCache], outputs: int, screened: bool
) -> PassKey:
    """What a recording is found by.

    Args:
        plan: that is followed.
        caches: of each row.
        outputs: rows that get logits.
        screened: whether the head is.
    """
    runs = tuple(len(list(rows)) for _, rows in itertools.groupby(caches, key=id))
    alone = id(caches[0]) if len(caches) == 1 else 0
    return PassKey(
        plan, len(caches), outputs, screened, runs if len(runs) < len(caches) else (), alone
    )


class Recordings(dict[PassKey, ForwardPass]):
    """Forward passes that were recorded, latest last."""

    def get_or_make(self, key: PassKey, make: Callable[[], ForwardPass]) -> ForwardPass:
        """The pass of a key, made by `make` if it is not there; the latest from now on."""
        known = self.pop(key, None) or self.pop(key._replace(cache=SPARE), None) or make()
        self[key] = known
        several = [each for each in self if each.runs]
        alone = [each for each in self if each.cache]
        for old in (*several[:-FEW_KEPT], *alone[:-ALONE_KEPT]):
            del self[old]
        return known

    def release(self, own: KVCache, over: KVCache | None) -> None:
        """Have those of a single row of a KV cache ready for the next one's.

        Args:
            own: that of the model, whose recordings stay.
            over: None: let go instead of all others, and of passes over several sequences.
        """
        if over is None:
            self.keep(lambda key, _: key.cache == id(own) or len(key.runs) == 1)
            return
        for key in [key for key in self if key.cache == id(over)]:
            self[key._replace(cache=SPARE)] = self.pop(key)

    def keep(self, wanted: Callable[[PassKey, ForwardPass], bool]) -> None:
        """Let go of all that are not wanted."""
        for key in [key for key, each in self.items() if not wanted(key, each)]:
            del self[key]
