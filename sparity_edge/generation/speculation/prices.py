"""Prices: how many times one token a pass over several costs, on this machine and model.

A list that was measured (`sparity-edge bench -s`) or learnt is where it begins; what passes really
take while text is written takes its place. Without both there is no price. Knows nothing of
guesses, nor of where lists are kept.
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
        unit: tokens of the pass that others are measured by: one of each of so many sequences.
    """

    def __init__(self, book: PriceBook | None = None, unit: int = 1) -> None:
        self.book, self.unit = book, unit
        self._seconds = defaultdict[int, deque[float]](lambda: deque(maxlen=LATEST))
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
        if price is not None:
            return price
        several, one = (_listed(self.kept, each, depth) for each in (size, self.unit))
        return None if several is None or one is None else several / one

    def _live(self, size: int) -> float | None:
        if self._passes - self._latest.get(size, self._passes) > FORGOTTEN:
            return None
        one, several = self.seconds(), self.seconds(size)
        return None if one is None or several is None else several / one


def _listed(prices: PriceList, size: int, depth: int) -> float | None:
    """The price of a size, from those of the sizes next to it where it is not in the list."""
    if size == 1 or not prices:
        return 1.0 if size == 1 else None
    known = {1: 1.0, **{each: _between(at, depth) for each, at in prices.items()}}
    if size in known:
        return known[size]
    sizes = sorted(known)
    above = next((each for each in sizes if each > size), sizes[-1])
    below = sizes[sizes.index(above) - 1]
    return known[below] + (known[above] - known[below]) * (size - below) / (above - below)


def _between(prices: Mapping[int, float], depth: int) -> float:
    """The price at a depth from those at the depths next to it."""
    below = max((each for each in prices if each <= depth), default=min(prices))
    above = min((each for each in prices if each >= depth), default=max(prices))
    if below == above:
        return prices[below]
    part = (depth - below) / (above - below)
    return prices[below] + part * (prices[above] - prices[below])
