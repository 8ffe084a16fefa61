"""Prices: how many times one token a pass over several costs, on this machine and model.

A list that was measured (`sparity-edge bench -s`) or learnt is where it begins; what passes really
take while text is written takes its place. Without both there is no price. What has not been seen
for long is doubted, so that a price which was bad once is tried anew. Knows nothing of guesses, nor
of where lists are kept.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from functools import cached_property
from typing import Protocol

SIZES = (2, 3, 4, 6, 8)  # tokens of passes that check guesses: each is recorded apart
ROWS = (*SIZES, 12, 16)  # the same, where they are of several sequences
ENOUGH = 2  # passes of a size, before their time counts
LATEST = 7  # passes whose median is taken
DOUBTED = 1000  # passes without one of a size, after which its price is half forgotten
GUESSED = 0.25  # of every token after the first, where nothing is known of the price
DEPTHS = 64  # tokens of context behind which a price that was kept is looked up anew
FORGOTTEN = 500  # passes without one of a size, after which what they took no longer counts

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
        unit: tokens of the pass that others are measured by: one of each of so many sequences.
    """

    def __init__(self, book: PriceBook | None = None, unit: int = 1) -> None:
        self.book, self.unit = book, unit
        self._seconds = defaultdict[int, deque[float]](lambda: deque(maxlen=LATEST))
        self._listed: dict[tuple[int, int], float | None] = {}  # as far as they were asked for
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
            size: tokens that it read.
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
        if self.unit == 1 < size and len(seen) == LATEST and size not in self.kept:
            self._keep(size, depth)

    def _keep(self, size: int, depth: int) -> None:
        price = self._live(size)
        if self.book is not None and price is not None:
            self._listed.clear()
            self.kept[size] = {depth: round(price, 3)}
            self.book.keep(self.kept)

    def seconds(self, size: int | None = None) -> float | None:
        """What such a pass takes at present; None: too few were seen.

        Args:
            size: tokens of the pass; None: the unit.
        """
        size = self.unit if size is None else size
        if size not in self._middle:
            seen = sorted(self._seconds[size])
            self._middle[size] = seen[len(seen) // 2] if len(seen) >= ENOUGH else None
        return self._middle[size]

    def of(self, size: int, depth: int) -> float | None:
        """How many times the unit a pass costs; None: that is not known.

        Args:
            size: tokens of the pass.
            depth: tokens of context.
        """
        price = self._live(size)
        if price is None:
            price = self._kept_price(size, depth)
            if price is None:
                return None
        hoped = min(price, self.guessed(size))
        unseen = self._passes - self._latest.get(size, 0)
        return float(hoped + (price - hoped) * 0.5 ** (unseen / DOUBTED))

    def _kept_price(self, size: int, depth: int) -> float | None:
        """By the list that was kept; the same for some tokens, for it is asked between two."""
        key = size, depth // DEPTHS
        if key not in self._listed:
            several, one = (_listed(self.kept, each, depth) for each in (size, self.unit))
            self._listed[key] = None if several is None or one is None else several / one
        return self._listed[key]

    def guessed(self, size: int) -> float:
        """The price of a pass whose price is not known.

        Args:
            size: tokens of the pass.
        """
        return (1 + GUESSED * (size - 1)) / (1 + GUESSED * (self.unit - 1))

    def _live(self, size: int) -> float | None:
        if self._passes - self._latest.get(size, self._passes) > FORGOTTEN:
            return None
        one, several = self.seconds(), self.seconds(size)
        return None if one is None or several is None else several / one


def _listed(prices: PriceList, size: int, depth: int) -> float | None:
    """The price of a size, from those of the sizes next to it where it is not in the list."""
    if size == 1:
        return 1.0
    if size in prices:
        return _between(prices[size], depth)
    if not prices:
        return None
    sizes = sorted({1, *prices})
    above = next((each for each in sizes if each > size), sizes[-1])
    below = sizes[sizes.index(above) - 1]
    low = 1.0 if below == 1 else _between(prices[below], depth)
    return low + (_between(prices[above], depth) - low) * (size - below) / (above - below)


def _between(prices: Mapping[int, float], depth: int) -> float:
    """The price at a depth from those at the depths next to it."""
    below = max((each for each in prices if each <= depth), default=min(prices))
    above = min((each for each in prices if each >= depth), default=max(prices))
    if below == above:
        return prices[below]
    part = (depth - below) / (above - below)
    return prices[below] + part * (prices[above] - prices[below])
