"""Pace: how many guesses to read in the next pass, so that it pays.

The most tokens for the time are chosen, by the chances of the guesses and the prices of passes.
Two things keep text in which nothing is right, and machines on which passes are dear, from being
slowed down. What passes over guesses have saved and lost is kept as a credit, in tokens' time: who
has none left waits until plain decoding has earned a little, or until guesses that were not read
have been right so often that they would have won more. No pass may lose more than is there, or a
few times that where its guesses are all but certain. And a pass of a size that is not recorded yet,
which costs as much as several tokens of a small model, waits until what would have been saved by it
is as much (ski rental).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from sparity_edge.generation.speculation.prices import SIZES, Prices

LEAST_GAIN = 1.05  # tokens for the time, over one by one: less is within what prices err by
# Where nothing is known of the price it is tried out on guesses that would pay this much at it.
LEAST_HOPE = 1.5
FIRST_CREDIT = 1.0  # tokens' time that a sequence may lose before anything was won in it
MOST_CREDIT = 4.0
# Chance of the first guess from which a pass may lose so many times the credit (SmolLM2, Zen 5,
# bench/speculation/speculate.py: with 2 the code that is edited gains 1.25, with any 1.32).
SURE, TIMES_SURE = 0.9, 3
REOPENED = 4.0  # tokens' time that passes would have won, for a credit that is lost
COMPILED = 32.0  # tokens that were missed for want of kernels, until they are compiled
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
        self.barred = 1  # tokens of the latest pass that pays and was not made for want of credit
        self._imagined = 0.0  # tokens' time that such passes would have won
        self._unread = 0.0  # that would have been saved, were kernels compiled
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

    def begin(self) -> None:
        """Begin a sequence: what others have won is not for it to lose."""
        self.credit = min(self.credit, FIRST_CREDIT)

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
        loss = self.credit if not chances or chances[0] < SURE else TIMES_SURE * self.credit
        safe = [each for each in found if self._price(each[1], depth) - 1 <= loss]
        size = self.choose(safe, recorded) or 1
        self.barred = max(found)[1] if found and (not safe or self.credit <= 0) else 1
        return size

    def imagine(self, size: int, tokens: int, depth: int) -> None:
        """Count a pass that was not made for want of credit, once it is known what it had brought.

        Args:
            size: tokens that it would have read.
            tokens: that would have come of it.
            depth: tokens of context.
        """
        self._imagined = max(0.0, self._imagined + tokens - self._price(size, depth))
        if self._imagined >= REOPENED:
            self.credit, self._imagined = max(self.credit, FIRST_CREDIT), 0.0

    def lacks_kernels(self, chances: Sequence[float], depth: int, most: int) -> bool:
        """Count guesses that cannot be read; whether enough was missed to compile what reads them.

        Args:
            chances: of each guess to be right, where those before it are.
            depth: tokens of context.
            most: tokens that there is room for.
        """
        gain = max((each[0] for each in self._paying(chances, depth, most)), default=1.0)
        self._unread += 1 - 1 / gain
        return self._unread >= COMPILED

    def _price(self, size: int, depth: int) -> float:
        return self.prices.of(size, depth) or self.prices.guessed(size)

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
            gain = expected / (self._price(size, depth) + cost * (size - 1))
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
        price = self.prices.of(size, depth)
        least = LEAST_HOPE if price is None else LEAST_GAIN
        gain = expected / (price or self.prices.guessed(size))
        return gain if gain >= least else 0.0

    def earn(self, tokens: float) -> None:
        """Count tokens that came without guesses of this credit.

        Args:
            tokens: how many of each sequence.
        """
        if self.credit < FIRST_CREDIT:
            self.credit += EARNED * tokens

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
