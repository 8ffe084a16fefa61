"""Pace: how many guesses to read in the next pass, so that it pays.

The most tokens for the time are chosen, by the chances of the guesses and the prices of passes.
Two things keep text in which nothing is right, and machines on which passes are dear, from being
slowed down. What passes over guesses have saved and lost is kept as a credit, in tokens' time: who
has none left waits until plain decoding has earned a little. And a pass of a size that is not
recorded yet, which costs as much as several tokens of a small model, waits until what would have
been saved by it is as much (ski rental).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from sparity_edge.generation.speculation.prices import SIZES, Prices

LEAST_GAIN = 1.05  # tokens for the time, over one by one: less is within what prices err by
# Where nothing is known of the price it is tried out on guesses that would pay this much at it.
GUESSED_PRICE = 0.25  # of every token after the first
LEAST_HOPE = 1.5
FIRST_CREDIT = 1.5  # tokens' time that may be lost before anything was won
MOST_CREDIT = 4.0
LEAST_CREDIT = -2.0  # a machine that stands still for a while does not count
EARNED = 0.005  # with every token
RECORDING = 0.012  # seconds, until one was seen (30 layers, Zen 5)


Shape = TypeVar("Shape")
_first: Callable[[tuple[float, Any]], float] = itemgetter(0)


class Pace:
    """Prices and credit of one model in memory; the sequences that it decodes share them.

    Args:
        prices: of its passes.
    """

    def __init__(self, prices: Prices | None = None) -> None:
        self.prices = prices or Prices()
        self.credit = FIRST_CREDIT
        self._recording = RECORDING
        self._batches: dict[int, Pace] = {}  # by how many sequences there are
        self._missed = 0.0  # tokens' time that passes would have saved, were they recorded

    def of_batch(self, sequences: int) -> Pace:
        """The pace of passes over several sequences.

        Args:
            sequences: how many there are.
        """
        if sequences not in self._batches:
            self._batches[sequences] = Pace(Prices(self.prices.book, sequences))
        return self._batches[sequences]

    def twin(self) -> Pace:
        """A pace of the same price list, for a model of the same weights."""
        return Pace(Prices(self.prices.book))

    def size(
        self, chances: Sequence[float], depth: int, most: int, recorded: Callable[[int], bool]
    ) -> int:
        """Tokens of the next pass: one and the guesses that are worth reading; 1: none is.

        Args:
            chances: of each guess to be right, where those before it are.
            depth: tokens of context.
            most: tokens that there is room for.
            recorded: whether a pass over so many tokens is.
        """
        found = list(self._paying(chances, depth, most))
        return self.choose(found, recorded) or 1

    def choose(
        self, found: Sequence[tuple[float, Shape]], recorded: Callable[[Shape], bool]
    ) -> Shape | None:
        """The shape of the next pass; None: one without guesses.

        Args:
            found: shapes that pay, each behind the tokens for the time, over a plain pass.
            recorded: whether a pass of a shape is.
        """
        if self.credit <= 0 or not found:
            return None
        gain, best = max(found, key=_first)
        others = [each for each in found if recorded(each[1])]
        other, ready = max(others, key=_first, default=(1.0, None))
        if gain > other:
            self._missed += 1 - other / gain
            one = self.prices.seconds()
            if one is not None and self._missed * one >= self._recording:
                self._missed = 0.0
                return best
        return ready

    def worth(self, chance: float, cost: float, depth: int, most: int) -> tuple[int, float]:
        """How many guesses to make where making them costs, and the tokens for the time then.

        Args:
            chance: of every guess to be right, where those before it are.
            cost: of a guess, in tokens' time.
            depth: tokens of context.
            most: guesses that there is room for.

        Returns:
            0 and 1 where none is worth it.
        """
        best, chosen = 1.0, 0
        for size in SIZES if self.credit > 0 else ():
            if size > most + 1:
                break
            expected = sum(chance**index for index in range(size))
            price = self.prices.of(size, depth)
            least = LEAST_GAIN if price else LEAST_HOPE
            gain = expected / ((price or _guessed(size)) + cost * (size - 1))
            if gain >= max(least, best):
                best, chosen = gain, size - 1
        return chosen, best

    def _paying(
        self, chances: Sequence[float], depth: int, most: int
    ) -> Iterator[tuple[float, int]]:
        """Sizes of passes that pay, each behind the tokens for the time, over one by one."""
        tokens, right, expected = 1, 1.0, 1.0
        for size in SIZES:
            if size > min(most, len(chances) + 1):
                return
            for chance in chances[tokens - 1 : size - 1]:
                right *= chance
                expected += right
            tokens = size
            gain = self.gain(expected, size, depth)
            if gain > 1:
                yield gain, size

    def gain(self, expected: float, size: int, depth: int) -> float:
        """Tokens for the time over those of a plain pass; 0: not enough to count on.

        Args:
            expected: how many times the tokens of a plain pass.
            size: tokens that the pass reads.
            depth: tokens of context.
        """
        price, unit = self.prices.of(size, depth), self.prices.unit
        least = LEAST_HOPE if price is None else LEAST_GAIN
        gain = expected / (price or _guessed(size) / _guessed(unit))
        return gain if gain >= least else 0.0

    def earn(self, tokens: float) -> None:
        """Count tokens that came without guesses of this credit.

        Args:
            tokens: how many of each sequence.
        """
        self.credit = min(self.credit + EARNED * tokens, MOST_CREDIT)

    def passed(
        self,
        size: int,
        tokens: int,
        seconds: float,
        depth: int,
        recorded: bool = False,
        spent: float = 0.0,
    ) -> None:
        """Count a pass.

        Args:
            size: tokens that it read.
            tokens: that came of it.
            seconds: that it took.
            depth: tokens of context.
            recorded: whether it had to be recorded first, as another one like it has not.
            spent: seconds that making guesses took.
        """
        unit, one = self.prices.unit, self.prices.seconds()
        self.earn(tokens / unit)
        if spent and one is not None:
            self.credit = max(self.credit - spent / one, LEAST_CREDIT)
        if recorded:
            if size == unit:
                self._recording = max(0.0, seconds - (one or 0.0))
            return
        self.prices.note(size, seconds, depth)
        if size > unit and one is not None:
            saved = self.credit + tokens / unit - seconds / one
            self.credit = min(max(saved, LEAST_CREDIT), MOST_CREDIT)


def _guessed(size: int) -> float:
    return 1 + GUESSED_PRICE * (size - 1)
