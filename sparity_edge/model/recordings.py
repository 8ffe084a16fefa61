"""Recordings: forward passes over one token a row, kept for the next token of the same shape.

Those over a few tokens of one sequence come in many lengths, so that the latest of them are kept
only. Knows nothing of what a pass computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sparity_edge.model.forward_pass import ForwardPass

FEW_KEPT = 6  # recordings of passes over a few tokens, by how many tokens there are


class PassKey(NamedTuple):
    """What recordings of passes over one token a row differ by."""

    sparse: bool  # whether the plan applies
    rows: int
    outputs: int
    screened: bool  # whether the head is
    few: bool  # whether rows are tokens of one sequence


class Recordings(dict[PassKey, ForwardPass]):
    """Forward passes that were recorded, latest last."""

    def get_or_make(self, key: PassKey, make: Callable[[], ForwardPass]) -> ForwardPass:
        """The pass of a key, made by `make` if it is not there; the latest from now on."""
        known = self.pop(key, None) or make()
        self[key] = known
        for old in [each for each in self if each.few][:-FEW_KEPT]:
            del self[old]
        return known

    def keep(self, wanted: Callable[[PassKey, ForwardPass], bool]) -> None:
        """Let go of all that are not wanted."""
        for key in [key for key, each in self.items() if not wanted(key, each)]:
            del self[key]
