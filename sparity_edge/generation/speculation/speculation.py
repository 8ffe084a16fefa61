"""Speculation: one sequence decoded by passes over its next token and guesses of what follows.

Every token is chosen from the logits that plain decoding would have at its place, by the same
sampler in the same state, and a guess is kept where it is what was chosen: the text is plain
decoding's bit by bit, however tokens are drawn. What the KV cache holds of wrong guesses is
forgotten before the next pass.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sparity_edge.generation.results import Step
from sparity_edge.generation.sequence import DecodingSequence
from sparity_edge.generation.speculation.draft import DraftSource
from sparity_edge.generation.speculation.pace import Pace
from sparity_edge.generation.speculation.prices import SIZES
from sparity_edge.model.model import Model
from sparity_edge.model.screened_head import Wanted


class Speculation:
    """The passes of one sequence after that of its prompt.

    Args:
        model: whose KV cache holds what was read of the sequence.
        sequence: that is decoded.
        sources: guess its tokens, the first that makes any worth reading; they know those so far.
            Beside each stands how many of its guesses are read.
        pace: counts passes that read no guess.
    """

    def __init__(
        self,
        model: Model,
        sequence: DecodingSequence,
        sources: Sequence[tuple[DraftSource, Pace]],
        pace: Pace,
    ) -> None:
        self._model, self._sequence = model, sequence
        self._sources, self._pace = sources, pace

    def steps(self) -> list[Step]:
        """Read the latest token, with guesses where that pays, and take what is chosen."""
        guesses, spent, pace = self._guesses()
        started = time.perf_counter()
        steps = self._read(guesses) if guesses else [self._read_one()]
        seconds = time.perf_counter() - started
        depth, recorded = len(self._model.kv_cache), self._model.recorded
        pace.passed(len(guesses) + 1, len(steps), seconds, depth, recorded, spent)
        for source, other in self._sources:
            if other is not pace:
                other.earn(len(steps))
            for step in steps:
                source.follow(step.token_id)
        return steps

    def _guesses(self) -> tuple[Sequence[int], float, Pace]:
        """Those that the next pass reads, the seconds that making them took, and who counts it."""
        model, spent, used = self._model, 0.0, self._pace
        most = min(self._sequence.room, SIZES[-1])
        if not self._sources or most < SIZES[0] or not model.reads_few_alike(most):
            return (), spent, used
        screened = model.screen is not None and self._sequence.wanted() is not None
        for source, pace in self._sources:
            draft = source.draft(most - 1)
            if draft.seconds:
                spent, used = draft.seconds, pace

            def ready(size: int, paid: bool = draft.seconds > 0) -> bool:
                return paid or model.few_recorded(size, screened)

            if draft.ids:
                size = pace.size(draft.chances, len(model.kv_cache), most, ready)
                if size > 1:
                    return draft.ids[: size - 1], spent, pace
        return (), spent, used

    def _read_one(self) -> Step:
        model, sequence = self._model, self._sequence
        started = time.perf_counter()
        wanted = None if model.screen is None else sequence.wanted()
        logits = model.read(sequence.ids[len(model.kv_cache) :], True, wanted=wanted)
        choice = sequence.choose(logits, model.exact_ids)
        seconds = time.perf_counter() - started
        sequence.meter.add(seconds, model.active_weight_fraction, model.densities)
        return sequence.take(*choice)

    def _read(self, guesses: Sequence[int]) -> list[Step]:
        """Read guesses behind the latest token; at least one step comes of it."""
        model, sequence = self._model, self._sequence
        kept = len(model.kv_cache)
        steps: list[Step] = []
        meter, started = sequence.meter, time.perf_counter()
        rows = model.read_each([sequence.ids[-1], *guesses], self._wanted(guesses))
        meter.add(0.0, model.active_weight_fraction, model.densities, len(guesses))
        try:
            for row, guess in zip(rows, [*guesses, None], strict=True):
                choice = sequence.choose(*row)
                now = time.perf_counter()
                meter.go_on(now - started, accepted=choice[0] == guess)
                started = now
                steps.append(sequence.take(*choice))
                if choice[0] != guess or sequence.finish_reason is not None:
                    break
        except Exception:
            if not steps:  # else they come first, and the next pass meets it again
                raise
        finally:
            model.kv_cache.trim(kept + max(1, len(steps)))
        return steps

    def _wanted(self, guesses: Sequence[int]) -> list[Wanted] | None:
        """Which logits each row of a pass has to have exactly; None: all."""
        if self._model.screen is None:
            return None
        asked = [self._sequence.wanted(guesses[:count]) for count in range(len(guesses) + 1)]
        found = [each for each in asked if each is not None]
        return found if len(found) == len(asked) else None
