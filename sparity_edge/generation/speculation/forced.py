"""ForcedTokens: the tokens that a schema, regex or grammar forces, as guesses that are certain.

They are read like guesses, several in one pass, and chosen without a look at the logits. Knows
nothing of grammars.
"""

from __future__ import annotations

from sparity_edge.generation.sequence import DecodingSequence
from sparity_edge.generation.speculation.draft import Draft


class ForcedTokens:
    """A source of guesses for a sequence that follows a constraint.

    Args:
        sequence: that is asked what must come next.
    """

    def __init__(self, sequence: DecodingSequence) -> None:
        self._sequence = sequence

    def draft(self, most: int) -> Draft:
        """Up to `most` tokens that must come next."""
        ids = self._sequence.forced(most)
        return Draft(ids, [1.0] * len(ids))

    def follow(self, token: int) -> None:
        """Nothing: the sequence knows its tokens."""
