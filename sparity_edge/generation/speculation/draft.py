"""Draft and DraftSource: guesses of the next tokens of a sequence, and what makes them.

A source is told every token of its sequence and asked for guesses in between. How likely each is to
be right is part of a guess, for that decides how many of them are worth reading. Tokens that are
certain, such as those that a schema forces, are guesses of chance 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Draft:
    """Guesses of the next tokens."""

    ids: Sequence[int] = ()
    chances: Sequence[float] = ()  # of each to be right, where all before it are
    seconds: float = 0.0  # that making them took


class DraftSource(Protocol):
    """What guesses the tokens of one sequence."""

    def draft(self, most: int) -> Draft:
        """Up to `most` guesses of what follows the tokens so far.

        Args:
            most: of the pass that will check them.
        """

    def follow(self, token: int) -> None:
        """Take the next token of the sequence, guessed or not.

        Args:
            token: its id.
        """
