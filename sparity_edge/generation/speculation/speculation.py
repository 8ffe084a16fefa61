"""Speculation: one sequence decoded by passes over its next token and guesses of what follows.

Every token is chosen from the logits that plain decoding would have at its place, by the same
sampler in the same state, and a guess is kept where it is what was chosen: the text is plain
decoding's bit by bit, however tokens are drawn. What the KV cache holds of wrong guesses is
forgotten before the next pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from sparity_edge.arrays import Floats
from sparity_edge.errors import SparityError
from sparity_edge.generation.results import Step
from sparity_edge.generation.sequence import DecodingSequence
from sparity_edge.generation.speculation.draft import Draft, DraftSource
from sparity_edge.generation.speculation.pace import Pace
from sparity_edge.generation.speculation.prices import SIZES
from sparity_edge.model.kv_cache import KVCache
from sparity_edge.model.model import Model
from sparity_edge.model.screened_head import Ids, Wanted

Result = TypeVar("Result")
Row = tuple[Floats, Ids | None]  # logits after a token, and the ids of those that are known


class Speculation:
    """The passes of one sequence after that of its prompt.

    Args:
        model: what reads it.
        sequence: that is decoded.
        sources: guess its tokens, the first that makes any worth reading; they know those so far.
            Beside each stands how many of its guesses are read.
        pace: counts passes that read no guess.
        cache: holds what was read of the sequence; None: the model's own.
    """

    def __init__(
        self,
        model: Model,
        sequence: DecodingSequence,
        sources: Sequence[tuple[DraftSource, Pace]],
        pace: Pace,
        cache: KVCache | None = None,
    ) -> None:
        self.sequence = sequence
        self.cache = model.kv_cache if cache is None else cache
        self.error: SparityError | None = None  # why no token could be chosen: it ends here
        self._model, self._sources, self._pace = model, sources, pace
        for each in {pace, *(other for _, other in sources)}:
            each.begin()
        self._imagined: list[int] = []  # guesses that were not read for want of credit
        self._right = 0  # of them, so far

    def steps(self) -> list[Step]:
        """Read the latest token, with guesses where that pays, and take what is chosen."""
        started = time.perf_counter()
        guesses, spent, pace = self._guesses()
        now = time.perf_counter()
        self.sequence.meter.go_on(now - started, accepted=False)
        started = now
        steps = self._read(guesses) if guesses else [self._read_one()]
        seconds = time.perf_counter() - started
        depth, recorded = len(self._model.kv_cache), self._model.recorded
        pace.passed(len(guesses) + 1, len(steps), seconds, depth, recorded, spent)
        for _, other in self._sources:
            if other is not pace:
                other.earn(len(steps))
        self.follow(steps)
        return steps

    def attempt(self, work: Callable[[], Result]) -> Result | None:
        """What some work on this sequence gives; None: it failed, and `error` says why.

        Args:
            work: that concerns no other sequence.
        """
        try:
            return work()
        except SparityError as error:
            self.error = error
            return None

    def follow(self, steps: Sequence[Step]) -> None:
        """Tell the sources what was chosen.

        Args:
            steps: of the latest pass.
        """
        for source, _ in self._sources:
            for step in steps:
                source.follow(step.token_id)
        for step in steps:
            self._imagine(step.token_id)

    def _imagine(self, token: int) -> None:
        """See what a pass that was not made would have brought."""
        guesses, right = self._imagined, self._right
        if not guesses:
            return
        hit = guesses[right] == token
        self._right += hit
        if not hit or self._right == len(guesses):
            self._pace.imagine(len(guesses) + 1, self._right + 1, len(self.cache))
            self._imagined = []

    def free_draft(self, most: int) -> Draft:
        """Guesses by a source that makes them at once, as far as they can be read.

        Args:
            most: guesses that there is room for.
        """
        most = min(most, self.sequence.room - 1)
        for source, pace in self._sources:
            if pace is self._pace and most > 0:
                draft = source.draft(most)
                if draft.ids and self._model.reads_few_alike(len(draft.ids) + 1, self.cache):
                    return draft
        return Draft()

    def _guesses(self) -> tuple[Sequence[int], float, Pace]:
        """Those that the next pass reads, the seconds that making them took, and who counts it."""
        model, cache, spent, used = self._model, self.cache, 0.0, self._pace
        most = min(self.sequence.room, SIZES[-1])
        if not self._sources or most < SIZES[0] or not model.reads_few_alike(most, cache):
            self._compile_if_worthwhile(most)
            return (), spent, used
        screened = model.screen is not None and self.sequence.wanted() is not None
        for source, pace in self._sources:
            draft = source.draft(most - 1)
            if draft.seconds:
                spent, used = draft.seconds, pace

            def ready(size: int, paid: bool = draft.seconds > 0) -> bool:
                return paid or model.rows_recorded([cache] * size, screened)

            if draft.ids:
                size = pace.size(draft.chances, len(cache), most, ready)
                if size > 1:
                    return draft.ids[: size - 1], spent, pace
                if pace is self._pace and pace.barred > 1 and not self._imagined:
                    self._imagined, self._right = list(draft.ids[: pace.barred - 1]), 0
        return (), spent, used

    def _compile_if_worthwhile(self, most: int) -> None:
        """Where nothing but kernels is missing, have another process compile them in time."""
        if self._sources and most >= SIZES[0] and not self._model.machine.batches_ready():
            source, pace = self._sources[0]
            chances = source.draft(most - 1).chances
            if pace is self._pace and pace.lacks_kernels(chances, len(self.cache), most):
                self._model.machine.compile_batches_behind()

    def _read_one(self) -> Step:
        model, sequence, cache = self._model, self.sequence, self.cache
        started = time.perf_counter()
        wanted = None if model.screen is None else sequence.wanted()
        logits = model.read(sequence.ids[len(cache) :], True, cache=cache, wanted=wanted)
        choice = sequence.choose(logits, model.exact_ids)
        seconds = time.perf_counter() - started
        sequence.meter.add(seconds, model.active_weight_fraction, model.densities)
        return sequence.take(*choice)

    def _read(self, guesses: Sequence[int]) -> list[Step]:
        """Read guesses behind the latest token; at least one step comes of it."""
        model, sequence, started = self._model, self.sequence, time.perf_counter()
        ids = [sequence.ids[-1], *guesses]
        rows = model.read_rows(ids, [self.cache] * len(ids), self._wanted(guesses))
        seconds = time.perf_counter() - started
        sequence.meter.add(seconds, model.active_weight_fraction, model.densities, len(guesses))
        return self.take(rows, guesses)

    def take(self, rows: Sequence[Row], guesses: Sequence[int]) -> list[Step]:
        """Choose tokens after what was read, as long as the guesses of them are right.

        Args:
            rows: of the latest token and of each guess, as `Model.read_rows` gives them.
            guesses: that stand in the KV cache, which keeps those that were right.

        Returns:
            One step at least.
        """
        sequence, kept = self.sequence, len(self.cache) - len(rows)
        steps: list[Step] = []
        started = time.perf_counter()
        try:
            for row, guess in zip(rows, [*guesses, None], strict=True):
                choice = sequence.choose(*row)
                now = time.perf_counter()
                sequence.meter.go_on(now - started, accepted=choice[0] == guess)
                started = now
                steps.append(sequence.take(*choice))
                if choice[0] != guess or sequence.finish_reason is not None:
                    break
        except Exception:
            if not steps:  # else they come first, and the next pass meets it again
                raise
        finally:
            self.cache.trim(kept + max(1, len(steps)))
        return steps

    def _wanted(self, guesses: Sequence[int]) -> list[Wanted] | None:
        """Which logits each row of a pass has to have exactly; None: all."""
        if self._model.screen is None:
            return None
        asked = [self.sequence.wanted(guesses[:count]) for count in range(len(guesses) + 1)]
        found = [each for each in asked if each is not None]
        return found if len(found) == len(asked) else None
