"""Least cost under a budget: one Lagrange multiplier over the cost curve of every piece.

Each piece of each layer has a curve, what it costs in quality to drop a share of its channels, and
a price, what it takes to read the rest. At the best plan all pieces pay the same for what they
save: each minimises cost + multiplier x price on its own, which picks points of the lower convex
hull of its curve, and the multiplier is found by bisection (Everett, 1963). Knows no model: pieces
are names, prices any unit.
"""

from __future__ import annotations

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
        self._tables = [
            [
                {
                    piece: (curve.at(self._shares), price(piece, layer, 1 - self._shares))
                    for piece, curve in form.items()
                }
                for form in forms
            ]
            for layer, forms in enumerate(layers)
        ]
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
        rates, forms, cost, price = [], [], 0.0, 0.0
        for tables in self._tables:
            found = [self._best(form, multiplier) for form in tables]
            best = int(np.argmin([each[1] + multiplier * each[2] for each in found]))
            rates.append(found[best][0])
            forms.append(best)
            cost += found[best][1]
            price += found[best][2]
        return Allocation(tuple(rates), tuple(forms), cost, price)

    def _best(
        self, form: Mapping[str, tuple[Array, Array]], multiplier: float
    ) -> tuple[dict[str, float], float, float]:
        rates, cost, price = {}, 0.0, 0.0
        for piece, (costs, prices) in form.items():
            place = int(np.argmin(costs + multiplier * prices)) if multiplier else 0
            cost += float(costs[place])
            price += float(prices[place])
            if place:
                rates[piece] = float(self._shares[place])
        return rates, cost, price
