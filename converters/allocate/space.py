"""Rates of every piece of every layer as genes: their bytes, where a search starts, and the dial.

What a search changed of its start at a few sparsities is interpolated between them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from converters.allocate.evolution import Genes, Genome
from converters.allocate.price import Spec, skippable_bytes
from converters.allocate.starts import scheduled, shapes
from converters.calibration.histograms import Array
from sparity_edge.choices import MAX_LEVEL
from sparity_edge.packed.layout import PackedMatrix

Rates = Sequence[Mapping[str, float]]  # by layer: piece -> share of channels to drop
Start = Callable[["Space", float], Array]  # (space, sparsity) -> (genes,) rates

STEP = 0.02  # of sparsity between two rows of the table


class Space:
    """What can be left unread of a model.

    Args:
        specs: tensor name -> how it is stored.
        layers: of the model.
        pieces: that may be sparse in each of them.
        means: by layer, matrices that are read where neurons are skipped at all.
    """

    def __init__(
        self,
        specs: Mapping[str, Spec],
        layers: int,
        pieces: Sequence[str],
        means: Sequence[PackedMatrix | None] = (),
    ) -> None:
        self.pieces = [(layer, piece) for layer in range(layers) for piece in pieces]
        self.layers = [layer for layer, _ in self.pieces]
        self.sizes = np.array(
            [skippable_bytes(specs, layer, piece) for layer, piece in self.pieces], dtype=np.float64
        )
        self.genes = Genes(self.sizes)
        of_layers = [spec for name, spec in specs.items() if ".layers." in name]
        self._dense = sum(spec.dense_nbytes for spec in of_layers)
        self._more = sum(spec.nbytes for spec in of_layers) - self._dense
        self._more += sum(mean.layout.nbytes for mean in means if mean is not None)

    def unread(self, sparsity: float) -> float:
        """Bytes that a genome of a sparsity leaves unread."""
        return sparsity * self._dense + self._more

    def sparsity(self, rates: Array) -> float:
        """The share of a dense pack's bytes that rates by gene do not read."""
        return float((rates @ self.sizes - self._more) / self._dense)

    def level(self, sparsity: float) -> float:
        """The mean rate of a sparsity, within what the dial allows."""
        return min(MAX_LEVEL, self.unread(sparsity) / float(self.sizes.sum()))

    def genome(self, rates: Array, sparsity: float) -> Genome:
        """The genome of a sparsity that is nearest to some rates."""
        return self.genes.genome(rates, self.unread(sparsity))

    def by_layer(self, rates: Array) -> Rates:
        """Rates by gene as those of each layer's pieces; what is 0 is missing."""
        found: list[dict[str, float]] = [{} for _ in range(self.layers[-1] + 1)]
        for (layer, piece), rate in zip(self.pieces, rates, strict=True):
            if rate > 0:
                found[layer][piece] = float(rate)
        return found

    def by_gene(self, rates: Rates) -> Array:
        """What `by_layer` undoes."""
        return np.array([rates[layer].get(piece, 0.0) for layer, piece in self.pieces])


def uniform(space: Space, sparsity: float) -> Array:
    """The start at which every piece drops the same share."""
    shape = shapes(space.layers[-1] + 1)["uniform"]
    return scheduled(shape, space.layers, space.sizes, space.level(sparsity), 0.0)


def table(
    space: Space, start: Start, found: Mapping[float, Genome]
) -> tuple[list[float], list[Rates]]:
    """Sparsities and rates of all rows of a family.

    What a search changed of its start is interpolated between the budgets; below the first of them
    it shrinks with the sparsity, beyond the last one it stays.

    Args:
        space: of the model.
        start: where the searches began.
        found: the genome of each budget.
    """
    budgets = [0.0, *sorted(found)]
    changes = [np.zeros(len(space.sizes))] + [
        space.genes.rates(found[at]) - space.genes.rates(space.genome(start(space, at), at))
        for at in budgets[1:]
    ]
    levels, rows = [0.0], [space.by_layer(np.zeros(len(space.sizes)))]
    for sparsity in np.arange(STEP, MAX_LEVEL + STEP / 2, STEP):
        change = [np.interp(sparsity, budgets, column) for column in np.array(changes).T]
        rates = space.genes.rates(space.genome(start(space, sparsity) + change, sparsity))
        reached = space.sparsity(rates)
        if levels[-1] + STEP / 2 < reached <= MAX_LEVEL:
            levels.append(reached)
            rows.append(space.by_layer(rates))
    return levels, rows
