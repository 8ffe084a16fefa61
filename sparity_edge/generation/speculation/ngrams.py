"""NGrams: guesses that a text goes on as it did where it read the same before (prompt lookup).

The longest passage behind which the text stands that stood there earlier, in prompt or answer, is
followed as long as it is right; every token tells whether it was, drafted or not, so that how often
guesses are right in this text is known before one of them costs anything. Saxena 2023, "Prompt
Lookup Decoding". Knows token ids only.
"""

from __future__ import annotations

from collections.abc import Iterable

from sparity_edge.generation.speculation.chances import Chances
from sparity_edge.generation.speculation.draft import Draft

SHORTEST = 2  # tokens of a passage that is looked for
LONGEST = 24  # longer ones count as that long
PLACES = 8  # of the same SHORTEST tokens, the latest ones, among which the longest is looked for
# Kinds of guesses: passages of so many tokens or more, and how often their next token is right in
# answers to questions about a text (bench/speculation/speculate.py, SmolLM2 and Qwen2.5-Coder).
LENGTHS = (2, 3, 4, 6, 10, 16, LONGEST)
PRIOR = (0.3, 0.45, 0.6, 0.75, 0.85, 0.92, 0.95)
_KINDS = [sum(each <= length for each in LENGTHS) - 1 for length in range(LONGEST + 1)]


class NGrams:
    """A source of guesses for one sequence.

    Args:
        ids: of the prompt.
    """

    def __init__(self, ids: Iterable[int]) -> None:
        self._ids: list[int] = []
        self._places: dict[tuple[int, int], int] = {}  # latest place behind two tokens
        self._earlier: list[int] = []  # of each place, the one before it of the same two; -1: none
        self._chances = Chances(PRIOR)
        self._at = -1  # the place of the token that is guessed; -1: none is
        self._length = 0  # tokens in front of it that are the same
        for token in ids:
            self._append(token)
        self._find()

    def draft(self, most: int) -> Draft:
        """Up to `most` guesses; a passage that reaches the end of the text repeats itself."""
        if self._at < 0:
            return Draft()
        ids, at, end = self._ids, self._at, len(self._ids)
        guesses = ids[at : at + most]
        while len(guesses) < most:
            guesses.append(guesses[len(guesses) - (end - at)])
        lengths = (min(self._length + index, LONGEST) for index in range(most))
        return Draft(guesses, [self._chances.of(_KINDS[length]) for length in lengths])

    def follow(self, token: int) -> None:
        """Take the next token of the text."""
        right = False
        if self._at >= 0:
            right = self._ids[self._at] == token
            self._chances.note(_KINDS[self._length], right)
        self._append(token)
        if right:
            self._at += 1
            self._length = min(self._length + 1, LONGEST)
        else:
            self._find()

    def _append(self, token: int) -> None:
        """Add a token to the text, and the place behind it to those that can be found."""
        ids = self._ids
        ids.append(token)
        self._earlier.append(-1)
        if len(ids) > SHORTEST:  # the place in front of this token: what stood there is followed
            place = len(ids) - 1
            key = (ids[place - 2], ids[place - 1])
            self._earlier[place] = self._places.get(key, -1)
            self._places[key] = place

    def _find(self) -> None:
        """Look for the longest passage that the text ends with and that stood there before."""
        ids, best = self._ids, 0
        self._at, self._length = -1, 0
        place = self._places.get((ids[-2], ids[-1]), -1) if len(ids) >= SHORTEST else -1
        for _ in range(PLACES):
            if place < 0:
                return
            length = self._common(place)
            if length > best:
                self._at, self._length, best = place, length, length
            place = self._earlier[place]

    def _common(self, place: int) -> int:
        """How many tokens in front of a place are those that the text ends with, up to LONGEST."""
        ids, end = self._ids, len(self._ids)
        length, most = SHORTEST, min(LONGEST, place)
        while length < most and ids[place - 1 - length] == ids[end - 1 - length]:
            length += 1
        return length
