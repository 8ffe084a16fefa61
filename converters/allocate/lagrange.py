"""Least cost under a budget: one Lagrange multiplier over the cost curve of every piece.

Each piece of each layer has a curve, what it costs in quality to drop a share of its channels, and
a price, what it takes to read the rest. At the best plan all pieces pay the same for what they
save: each minimises cost + multiplier x price on its own, which picks points of the lower convex
hull of its curve, and the multiplier is found by bisection (Everett, 1963). Knows no model: pieces
are names, prices any unit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
# (piece, layer, densities) -> what reading takes at each density of channels, in any unit.
Price = Callable[[str, int, Array], Array]

STEPS = 191  # points of a curve that are tried: shares of 0, 0.005 ... 0.95
BISECTIONS = 60
LOWEST, HIGHEST = 1e-30, 1e30  # multipliers


@dataclass(frozen=True)
class Curve:
    """What dropping channels of one piece costs; `rates` rise from 0, where the cost is 0."""

    rates: Array  # (n,) shares of channels dropped
    costs: Array  # (n,)

    def at(self, rates: Array) -> Array:
        """Costs between the points: straight lines over the logarithm, as costs grow by powers."""
        floor = max(float(self.costs[1:].min()), 1e-30) * 1e-2
        costs: Array = np.exp(np.interp(rates, self.rates, np.log(self.costs + floor))) - floor
        return np.maximum(costs, 0)


# The forms that a layer can take: in each, the pieces that may be sparse.
Forms = Sequence[Mapping[str, Curve]]


@dataclass(frozen=True)
class Allocation:
    """What share of each piece's channels to drop, by layer, and what that comes to."""

    rates: tuple[Mapping[str, float], ...]  # by layer; a piece of rate 0 is missing
    forms: tuple[int, ...]  # which of its forms each layer takes
    cost: float
    price: float


class Allocator:
    """Finds plans for any budget.

    Args:
        layers: the forms of each layer.
        price: what reading takes. A piece of one form that stands for several of another (neurons
            for up and down) must have the same price as those when nothing is dropped.
    """

    def __init__(self, layers: Sequence[Forms], price: Price) -> None:
        self._shares = np.linspace(0, 0.95, STEPS)
        # A row of each table for each piece of each form of each layer, all searched at once.
        self._pieces = [
            (layer, form, piece)
            for layer, forms in enumerate(layers)
            for form, curves in enumerate(forms)
            for piece in curves
        ]
        self._costs = np.array(
            [layers[i][j][piece].at(self._shares) for i, j, piece in self._pieces]
        )
        self._prices = np.array([price(piece, i, 1 - self._shares) for i, _, piece in self._pieces])
        self._forms = np.cumsum([0, *map(len, layers)])  # where those of a layer begin
        self._form = np.array([self._forms[i] + j for i, j, _ in self._pieces])  # of each row
        self.dense = self._at(0.0).price

    def within(self, budget: float) -> Allocation:
        """The plan of least cost whose price is at most `budget` times the dense one's.

        A budget below what can be reached gives the cheapest plan there is.
        """
        low, high = np.log(LOWEST), np.log(HIGHEST)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            if self._at(float(np.exp(middle))).price > budget * self.dense:
                low = middle
            else:
                high = middle
        return self._at(float(np.exp(high)))

    def _at(self, multiplier: float) -> Allocation:
        rows = np.arange(len(self._pieces))
        places = np.zeros(len(rows), dtype=np.int64)
        if multiplier:
            places = np.argmin(self._costs + multiplier * self._prices, axis=1)
        costs, prices = (
            np.bincount(self._form, table[rows, places], minlength=self._forms[-1])
            for table in (self._costs, self._prices)
        )
        spent = costs + multiplier * prices
        best = [
            start + int(np.argmin(spent[start:stop]))
            for start, stop in itertools.pairwise(self._forms)
        ]
        rates: list[dict[str, float]] = [{} for _ in best]
        for row in np.flatnonzero(places):
            layer, _, piece = self._pieces[row]
            if best[layer] == self._form[row]:
                rates[layer][piece] = float(self._shares[places[row]])
        forms = tuple(int(each - start) for each, start in zip(best, self._forms))
        return Allocation(tuple(rates), forms, float(costs[best].sum()), float(prices[best].sum()))
