"""Prices: how many times one token a pass over several costs, on this machine and model.

A list that was measured (`sparity-edge bench -s`) or learnt is where it begins; what passes really
take while text is written takes its place. Without both there is no price. Knows nothing of
guesses, nor of where lists are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import cached_property
from typing import Protocol

SIZES = (2, 3, 4, 6, 8)  # tokens of passes that check guesses: each is recorded apart
ENOUGH = 2  # passes of a size, before their time counts
LATEST = 7  # passes whose median is taken
FORGOTTEN = 500  # passes after which those of a size that was not read since are tried anew

# Tokens of a pass -> tokens of context -> times one token.
PriceList = Mapping[int, Mapping[int, float]]


class PriceBook(Protocol):
    """Where a price list is kept."""

    def find(self) -> PriceList:
        """The list; empty: there is none."""

    def keep(self, prices: PriceList) -> None:
        """Keep a list in its place."""


class Prices:
    """What passes cost, by their tokens.

    Args:
        book: where a list is kept; None: nowhere.
    """

    def __init__(self, book: PriceBook | None = None) -> None:
        self.book = book
        self._seconds = {size: deque[float](maxlen=LATEST) for size in (1, *SIZES)}
        self._middle: dict[int, float | None] = {}  # medians, as far as they were asked for
        self._passes = 0
        self._latest: dict[int, int] = {}  # pass of each size

    @cached_property
    def kept(self) -> dict[int, Mapping[int, float]]:
        """The list as it was kept."""
        return {} if self.book is None else dict(self.book.find())

    def note(self, size: int, seconds: float, depth: int) -> None:
        """Count a pass.

        Args:
            size: tokens that it read, 1 or one of SIZES.
            seconds: that it took.
            depth: tokens of context.
        """
        seen = self._seconds[size]
        self._passes += 1
        if self._passes - self._latest.get(size, self._passes) > FORGOTTEN:
            seen.clear()
        self._latest[size] = self._passes
        seen.append(seconds)
        self._middle.pop(size, None)
        if size > 1 and len(seen) == LATEST and size not in self.kept:
            self._keep(size, depth)

    def _keep(self, size: int, depth: int) -> None:
        price = self._live(size)
        if self.book is not None and price is not None:
            self.kept[size] = {depth: round(price, 3)}
            self.book.keep(self.kept)

    def seconds(self, size: int = 1) -> float | None:
        """What such a pass takes at present; None: too few were seen.

        Args:
            size: tokens of the pass, 1 or one of SIZES.
        """
        if size not in self._middle:
            seen = sorted(self._seconds[size])
            self._middle[size] = seen[len(seen) // 2] if len(seen) >= ENOUGH else None
        return self._middle[size]

    def of(self, size: int, depth: int) -> float | None:
        """How many times one token a pass costs; None: that is not known.

        Args:
            size: tokens of the pass, one of SIZES.
            depth: tokens of context.
        """
        price = self._live(size)
        return _between(self.kept.get(size, {}), depth) if price is None else price

    def _live(self, size: int) -> float | None:
        if self._passes - self._latest.get(size, self._passes) > FORGOTTEN:
            return None
        one, several = self.seconds(), self.seconds(size)
        return None if one is None or several is None else several / one


def _between(prices: Mapping[int, float], depth: int) -> float | None:
    """The price at a depth from those at the depths next to it."""
    if not prices:
        return None
    below = max((each for each in prices if each <= depth), default=min(prices))
    above = min((each for each in prices if each >= depth), default=max(prices))
    if below == above:
        return prices[below]
    part = (depth - below) / (above - below)
    return prices[below] + part * (prices[above] - prices[below])
