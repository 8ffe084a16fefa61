"""Batch: several answers decoded together, each weight read once for one token of all of them.

Every answer has a cache of its own; a prompt that begins like one that has been read takes those
keys and values over. An answer that ends makes room for the next prompt. The lock is held while the
model works and not while a step is looked at.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence

from sparity_edge.generation.results import Step
from sparity_edge.generation.sequence import Answer
from sparity_edge.model.kv_cache import Cache
from sparity_edge.model.model import Model

MOST_TOGETHER = 8  # more are bound by arithmetic, not by reading weights
# Tokens worth taking over from another cache.
LEAST_SHARED = 32


class Batch:
    """Answers that are made side by side.

    Args:
        model: what reads; its own cache is looked at but not changed.
        answers: none begun yet; as many as one likes.
        thin_prompts: whether a plan applies to prompts too.
        busy: held whenever the model works.
    """

    def __init__(
        self, model: Model, answers: Sequence[Answer], thin_prompts: bool, busy: threading.Lock
    ) -> None:
        self._model = model
        self._waiting = deque(enumerate(answers))
        self._running: list[tuple[int, Answer, Cache]] = []
        self._thin_prompts = thin_prompts
        self._busy = busy

    def steps(self) -> Iterator[tuple[int, Step]]:
        """The steps of all answers, each with the number of its answer."""
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < MOST_TOGETHER:
                    yield self._begin(*self._waiting.popleft())
                    self._drop_finished()
                yield from self._advance()
                self._drop_finished()
        finally:
            self._running.clear()
            self._model.release()

    def _drop_finished(self) -> None:
        self._running = [each for each in self._running if each[1].finish_reason is None]

    def _begin(self, index: int, answer: Answer) -> tuple[int, Step]:
        """Read a prompt and choose the first token after it."""
        model = self._model
        with self._busy:
            started = time.perf_counter()
            cache = model.new_cache()
            answer.meter.cached = self._share(answer.ids, cache)
            logits = model.read(answer.ids[len(cache) :], self._thin_prompts, cache)
            chosen = answer.choose(logits)
            seconds = time.perf_counter() - started
            answer.meter.add(seconds, model.active_weight_fraction, model.densities)
        self._running.append((index, answer, cache))
        return index, answer.take(*chosen)

    def _share(self, ids: Sequence[int], cache: Cache) -> int:
        """Take over the longest beginning that is at hand; returns its length."""
        others = [self._model.cache, *(each[2] for each in self._running)]
        lengths = [other.common(ids) for other in others]
        most = max(lengths)
        if most < LEAST_SHARED:
            return 0
        cache.copy(others[lengths.index(most)], most)
        return most

    def _advance(self) -> Iterator[tuple[int, Step]]:
        """One token of each answer that is under way."""
        if not self._running:
            return
        model = self._model
        answers = [answer for _, answer, _ in self._running]
        with self._busy:
            started = time.perf_counter()
            latest = [answer.ids[-1] for answer in answers]
            logits = model.read_together(latest, [cache for _, _, cache in self._running], True)
            chosen = [answer.choose(row) for answer, row in zip(answers, logits, strict=True)]
            seconds = time.perf_counter() - started
            active, densities = model.active_weight_fraction, model.densities
        for (index, answer, _), choice in zip(self._running, chosen, strict=True):
            answer.meter.add(seconds, active, densities)
            yield index, answer.take(*choice)
