"""Chances: how often guesses of one kind have been right in this text, beginning with a prior.

Old observations fade, for a text may turn from copying to writing. Knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

PRIOR_WEIGHT = 6.0  # observations that the prior counts for
UNSEEN = 0.995  # of it, with every token that was not guessed
FADE = 0.96  # of what was seen, with every further observation of its kind


class Chances:
    """Running shares of right guesses, by kind.

    Args:
        prior: of each kind, the share that is right in texts at large.
    """

    def __init__(self, prior: Sequence[float]) -> None:
        self._prior = prior
        self._right = [0.0] * len(prior)
        self._seen = [0.0] * len(prior)

    def note(self, kind: int, right: bool) -> None:
        """Count a guess.

        Args:
            kind: of the guess, an index into the prior.
            right: whether it was what the sampler chose.
        """
        self._right[kind] = FADE * self._right[kind] + right
        self._seen[kind] = FADE * self._seen[kind] + 1

    def fade(self, kind: int) -> None:
        """Forget a little of what was seen: no guess of the kind was made."""
        self._right[kind] *= UNSEEN
        self._seen[kind] *= UNSEEN

    def of(self, kind: int) -> float:
        """The share of right guesses to expect."""
        known = PRIOR_WEIGHT * self._prior[kind] + self._right[kind]
        return known / (PRIOR_WEIGHT + self._seen[kind])
