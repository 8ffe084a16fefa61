"""Together: passes over one sequence or several, with guesses of their tokens where these pay.

One sequence alone may have guesses of every kind. Several share the rows of a pass: the guesses
that are likeliest to be right are read, of whichever sequence, as many as the price of the pass
makes worth it. Every sequence has the text that it has alone, bit by bit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.generation.results import Step
from sparity_edge.generation.speculation.draft import Draft
from sparity_edge.generation.speculation.pace import Pace
from sparity_edge.generation.speculation.prices import ROWS, SIZES
from sparity_edge.generation.speculation.speculation import Speculation
from sparity_edge.model.kv_cache import KVCache

SHAPES_KEPT = 6  # that were read before, among which one may be that needs no recording

Shape = tuple[int, ...]  # tokens of each sequence that a pass reads


class Together:
    """The passes of sequences that are decoded side by side, each with a KV cache of its own.

    Args:
        loaded: the model.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded, self._model = loaded, loaded.model
        self._shapes = deque[Shape](maxlen=SHAPES_KEPT)

    def steps(self, running: Sequence[Speculation]) -> list[list[Step]]:
        """Read the latest token of each sequence, with guesses where these pay.

        Args:
            running: sequences that are not over, at least one.

        Returns:
            Of each one step or more; none where its `error` says why it ends.
        """
        if len(running) == 1:
            return [running[0].attempt(running[0].steps) or []]
        pace = self._loaded.pace.of_batch(len(running))
        drafts, shape = self._shape(running, pace)
        started = time.perf_counter()
        read = self._read_several if any(count > 1 for count in shape) else self._read_one_each
        steps = read(running, [each.ids for each in drafts], shape)
        steps = [[] if each.error else own for each, own in zip(running, steps, strict=True)]
        seconds, depth = time.perf_counter() - started, _depth(running)
        recorded, tokens = self._model.recorded, sum(map(len, steps))
        pace.passed(sum(shape), tokens, seconds, depth, recorded)
        for speculation, own in zip(running, steps, strict=True):
            speculation.follow(own)
        return steps

    def _shape(self, running: Sequence[Speculation], pace: Pace) -> tuple[list[Draft], Shape]:
        """Guesses of each sequence, and how many tokens of it the next pass reads."""
        none = (1,) * len(running)
        most = min(SIZES[-1], ROWS[-1] - len(running) + 1) - 1
        if pace.credit <= 0:
            return [Draft()] * len(running), none
        drafts = [each.attempt(partial(each.free_draft, most)) or Draft() for each in running]
        if not any(draft.ids for draft in drafts):
            return drafts, none
        expected = {shape: _expected(shape, drafts) for shape in self._known(drafts)}
        depth = _depth(running)
        gains = [
            (pace.gain(tokens / len(running), sum(shape), depth), shape)
            for shape, tokens in expected.items()
        ]
        shape = pace.choose(
            [each for each in gains if each[0] > 1],
            lambda shape: self._model.rows_recorded(_caches(running, shape), False),
        )
        if shape is None:
            return drafts, none
        if shape not in self._shapes:
            self._shapes.append(shape)
        return drafts, shape

    def _known(self, drafts: Sequence[Draft]) -> Iterator[Shape]:
        """Shapes that are worth a look: the best of each number of rows, and those read before."""
        yield from _best_shapes(drafts)
        for shape in self._shapes:
            if len(shape) == len(drafts) and all(
                count <= len(draft.ids) + 1 for count, draft in zip(shape, drafts, strict=True)
            ):
                yield shape

    def _read_several(
        self, running: Sequence[Speculation], drafts: Sequence[Sequence[int]], shape: Shape
    ) -> list[list[Step]]:
        model, started = self._model, time.perf_counter()
        guesses = [ids[: count - 1] for ids, count in zip(drafts, shape, strict=True)]
        ids = [
            token
            for each, own in zip(running, guesses, strict=True)
            for token in (each.sequence.ids[-1], *own)
        ]
        rows = model.read_rows(ids, _caches(running, shape))
        seconds = time.perf_counter() - started
        found, first = [], 0
        for speculation, own in zip(running, guesses, strict=True):
            meter = speculation.sequence.meter
            meter.add(seconds, model.active_weight_fraction, model.densities, len(own))
            take = partial(speculation.take, rows[first : first + len(own) + 1], own)
            found.append(speculation.attempt(take) or [])
            first += len(own) + 1
        return found

    def _read_one_each(
        self, running: Sequence[Speculation], _drafts: Sequence[Sequence[int]], _shape: Shape
    ) -> list[list[Step]]:
        model, started = self._model, time.perf_counter()
        sequences = [each.sequence for each in running]
        latest = [each.ids[-1] for each in sequences]
        rows = model.read_together(latest, [each.cache for each in running], True)
        chosen = [
            each.attempt(partial(each.sequence.choose, row))
            for each, row in zip(running, rows, strict=True)
        ]
        seconds = time.perf_counter() - started
        for each in sequences:
            each.meter.add(seconds, model.active_weight_fraction, model.densities)
        found = []
        for speculation, choice in zip(running, chosen, strict=True):
            take = speculation.sequence.take
            step = choice and speculation.attempt(partial(take, *choice))
            found.append([step] if step else [])
        return found


def _caches(running: Iterable[Speculation], shape: Shape) -> list[KVCache]:
    """The KV cache of every row of a pass."""
    pairs = zip(running, shape, strict=True)
    return [each.cache for each, count in pairs for _ in range(count)]


def _depth(running: Iterable[Speculation]) -> int:
    return max(len(each.cache) for each in running)


def _best_shapes(drafts: Sequence[Draft]) -> Iterator[Shape]:
    """Of each number of rows that passes may have, the one that reads the likeliest guesses."""
    likeliest = []
    for index, draft in enumerate(drafts):
        right = 1.0
        for chance in draft.chances:
            right *= chance
            likeliest.append((-right, index))
    likeliest.sort()
    del likeliest[ROWS[-1] - len(drafts) :]
    counts = [1] * len(drafts)
    for rows, (_, index) in enumerate(likeliest, len(drafts) + 1):
        counts[index] += 1
        if rows in ROWS or rows == len(drafts) + len(likeliest):
            yield tuple(counts)


def _expected(shape: Shape, drafts: Sequence[Draft]) -> float:
    """Tokens that a pass of a shape brings on average."""
    tokens = 0.0
    for count, draft in zip(shape, drafts, strict=True):
        right = 1.0
        tokens += right
        for chance in draft.chances[: count - 1]:
            right *= chance
            tokens += right
    return tokens
