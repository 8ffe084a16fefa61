"""EvoPress (Sieberling et al., ICML 2025, arXiv 2410.14649): evolutionary search under a budget.

A genome says how many units of bytes each gene leaves unread. A mutation takes units from one gene
and gives as many to another, so every genome meets the budget exactly. Of each generation's
offspring the better ones are judged again on more text, the last of them beside their parent.
Differs from the paper in the size of a mutation, a share of the smaller gene in place of a fixed
number of weights. Knows no model: a score is a function, and what is judged are places in a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.calibration.checkpoint import NOWHERE, Checkpoint
from converters.calibration.histograms import Array
from sparity_edge.progress import Progress, silent

Genome = npt.NDArray[np.int64]  # (genes,) units left unread
# (genomes, places in the text) -> a number for each genome, the lower the better.
Score = Callable[[Sequence[Genome], Sequence[int]], Sequence[float]]

MOST_RATE = 0.95  # of a gene's bytes that may be left unread
UNITS = 100  # that the smallest gene consists of
STRIDES = (0.02, 0.05, 0.1)  # shares of the smaller of two genes that a mutation moves
MOST_SWITCHES = 3  # mutations that tell a child from its parent
TRIES = 20  # to find a child that is not there yet


@dataclass(frozen=True)
class Stage:
    """One round of selection."""

    survivors: int
    places: int  # of the text, drawn anew for each generation


@dataclass(frozen=True)
class Effort:
    """How much is searched."""

    generations: int
    offspring: int
    stages: tuple[Stage, ...]  # the last one has one survivor

    @property
    def judged(self) -> int:
        """Genomes times places that one generation judges."""
        counts = (self.offspring, *(stage.survivors for stage in self.stages[:-1]))
        last = len(self.stages) - 1
        return sum(
            (count + (index == last)) * stage.places
            for index, (count, stage) in enumerate(zip(counts, self.stages, strict=True))
        )


class Genes:
    """What can be left unread, in units.

    Args:
        sizes: (genes,) bytes of each.
    """

    def __init__(self, sizes: Array) -> None:
        self.unit = float(np.min(sizes)) / UNITS
        self._sizes = np.asarray(sizes, dtype=np.float64)
        self.room: Genome = np.floor(MOST_RATE * self._sizes / self.unit).astype(np.int64)

    def rates(self, genome: Genome) -> Array:
        """The share of each gene that is left unread."""
        rates: Array = genome * self.unit / self._sizes
        return rates

    def genome(self, rates: Array, nbytes: float) -> Genome:
        """The genome nearest to some rates that leaves a number of bytes unread, within a unit.

        Args:
            rates: (genes,).
            nbytes: what is out of reach gives the genome that leaves as much as can be.
        """
        wanted = np.clip(np.asarray(rates) * self._sizes / self.unit, 0, self.room)
        genome: Genome = np.floor(wanted).astype(np.int64)
        missing = min(round(nbytes / self.unit), int(self.room.sum())) - int(genome.sum())
        # The largest remainders first; what is more than one unit a gene goes to all in turn.
        order = np.argsort(genome - wanted, kind="stable")
        while missing:
            step = 1 if missing > 0 else -1
            free = self.room > genome if missing > 0 else genome > 0
            chosen = order[free[order]][: abs(missing)]
            genome[chosen] += step
            missing -= step * len(chosen)
        return genome

    def child(self, parent: Genome, random: np.random.Generator) -> Genome:
        """The parent with one to three mutations, rather few."""
        genome = parent.copy()
        for _ in range(int(random.integers(1, MOST_SWITCHES + 1, 2).min())):
            donors = np.flatnonzero(genome > 0)
            donor = int(random.choice(donors))
            takers = np.flatnonzero(genome < self.room)
            takers = takers[takers != donor]
            if not len(takers):
                break
            taker = int(random.choice(takers))
            smaller = min(self._sizes[donor], self._sizes[taker]) / self.unit
            moved = max(1, round(float(random.choice(STRIDES)) * smaller))
            moved = min(moved, int(genome[donor]), int(self.room[taker] - genome[taker]))
            genome[donor] -= moved
            genome[taker] += moved
        return genome


def evolve(
    genes: Genes,
    start: Genome,
    score: Score,
    effort: Effort,
    places: int,
    *,
    seed: int = 0,
    name: str = "evopress",
    progress: Progress = silent,
    checkpoint: Checkpoint = NOWHERE,
) -> tuple[Genome, Array]:
    """Search from one genome on.

    Args:
        genes: what a genome means.
        start: the first parent.
        score: judges genomes; must not depend on what it was asked before.
        effort: how much is searched.
        places: of the text; each stage draws its own from them.
        seed: the search is the same for the same seed.
        name: of the search, for progress and checkpoint.
        progress: told of generations.
        checkpoint: keeps the parent behind every generation.

    Returns:
        The best genome, and (generations, 2): scores of the parent and of the one that follows it,
        on the text of the last stage.
    """
    kept = checkpoint.load(name) or {}
    parent, history = start, np.zeros((effort.generations, 2))
    begun = 0
    if _fits(kept, start, effort):
        parent, history, begun = kept["parent"], kept["history"], int(kept["begun"])
    for generation in range(begun, effort.generations):
        progress(name, generation, effort.generations)
        random = np.random.default_rng([seed, generation])
        found = _offspring(genes, parent, effort.offspring, random)
        for index, stage in enumerate(effort.stages):
            last = index == len(effort.stages) - 1
            judged = [parent, *found] if last else found
            chosen = random.choice(places, min(stage.places, places), replace=False)
            scores = score(judged, sorted(int(each) for each in chosen))
            order = np.argsort(scores, kind="stable")
            if last:
                history[generation] = scores[0], scores[order[0]]
                parent = judged[order[0]]
            else:
                found = [judged[each] for each in order[: stage.survivors]]
        state = {"start": start, "parent": parent, "history": history}
        state["begun"] = np.array(generation + 1)
        checkpoint.offer(name, lambda state=state: state, last=True)  # type: ignore[misc]
    progress(name, effort.generations, effort.generations)
    return parent, history


def _offspring(
    genes: Genes, parent: Genome, count: int, random: np.random.Generator
) -> list[Genome]:
    """Children that differ from the parent and from each other; fewer where few can be found."""
    known, found = {parent.tobytes()}, list[Genome]()
    for _ in range(TRIES * count):
        child = genes.child(parent, random)
        if child.tobytes() not in known:
            known.add(child.tobytes())
            found.append(child)
            if len(found) == count:
                break
    return found


def _fits(kept: dict[str, Array], start: Genome, effort: Effort) -> bool:
    """Whether a state is one of this search."""
    return (
        set(kept) == {"start", "parent", "history", "begun"}
        and np.array_equal(kept["start"], start)
        and kept["parent"].shape == start.shape
        and kept["parent"].dtype == start.dtype
        and int(kept["parent"].sum()) == int(start.sum())
        and kept["history"].shape == (effort.generations, 2)
        and kept["begun"].shape == ()
        and 0 <= int(kept["begun"]) <= effort.generations
    )
