"""DraftModel: a smaller model of the same vocabulary that guesses what the larger one will write.

It reads what the larger one has, into a KV cache of its own, and goes on greedily. What a guess
costs is measured; how often guesses of one confidence are right is counted, text by text. Guesses
that are not worth it are not made, nor is a prompt read for an answer that is too short to pay for
that. Leviathan et al. 2023 and Chen et al. 2023; here a guess counts where the larger model's own
draw is that very token, which leaves its text as it is bit by bit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from sparity_edge.errors import OptionError
from sparity_edge.generation.speculation.chances import Chances
from sparity_edge.generation.speculation.draft import Draft
from sparity_edge.generation.speculation.pace import Pace
from sparity_edge.generation.speculation.prices import Prices
from sparity_edge.model.model import Model
from sparity_edge.model.screened_head import Wanted

if TYPE_CHECKING:
    from sparity_edge.text.tokenizer import Tokenizer

# Kinds of guesses by the share that the draft model gives its best token, and how often that is
# what the larger model writes (bench/speculation/speculate.py, Qwen2.5-Coder 0.5B for 1.5B).
SHARES = (0.0, 0.3, 0.5, 0.7, 0.85, 0.95)
PRIOR = (0.2, 0.4, 0.55, 0.7, 0.85, 0.95)
AT_LARGE = 0.75  # of all guesses, until some were seen
LEAST_RIGHT = 0.35  # chance of all guesses so far to be right, below which no further one is made
COMPARED = 8  # of the best tokens, by which the share of the best one is told
PROMPT_SHARE = 0.2  # of what a guess costs, that reading a token of a prompt does
MOST_AHEAD = 64  # tokens of an answer that reading a prompt may be paid by


class DraftModel:
    """A draft model in memory, and what its guesses cost.

    Args:
        model: with a KV cache of its own.
        target: the model that it guesses for.
    """

    def __init__(self, model: Model, target: Model) -> None:
        self.model = model
        self.vocab_size = min(model.config.vocab_size, target.config.vocab_size)
        self._bytes_share = model.layer_bytes / target.layer_bytes
        self._seconds: deque[float] = deque(maxlen=15)
        self._pace: Pace | None = None

    def pace(self, prices: Prices) -> Pace:
        """The credit of this model's guesses, apart from that of guesses that cost nothing.

        Args:
            prices: of passes of the larger model.
        """
        if self._pace is None or self._pace.prices is not prices:
            self._pace = Pace(prices)
        return self._pace

    def cost(self, pace: Pace) -> float:
        """What a guess costs, in tokens' time of the larger model.

        Args:
            pace: as `pace` gives it.
        """
        one = pace.prices.seconds()
        if one is None or len(self._seconds) < 3:
            return self._bytes_share
        return sorted(self._seconds)[len(self._seconds) // 2] / one

    def best(self, ids: list[int]) -> tuple[int, float]:
        """Read ids; the best token behind them, and about its share.

        Args:
            ids: that follow what its KV cache holds.

        Raises:
            ContextError: they do not fit.
        """
        started, model = time.perf_counter(), self.model
        wanted = None if model.screen is None else Wanted(COMPARED, np.zeros(0, dtype=np.int64))
        logits = model.read(ids, wanted=wanted)
        known = logits if model.exact_ids is None else logits[model.exact_ids]
        best = int(known.argmax())
        share = 1 / float(np.exp(known - known[best]).sum())
        token = best if model.exact_ids is None else int(model.exact_ids[best])
        if len(ids) == 1 and not model.recorded:
            self._seconds.append(time.perf_counter() - started)
        return token, share


def demand_same_vocabulary(target: Tokenizer, draft: Tokenizer, name: str) -> None:
    """Refuse a draft model whose token ids mean something else.

    Args:
        target: tokenizer of the model that it would guess for.
        draft: its own tokenizer.
        name: its name.

    Raises:
        OptionError: they differ.
    """
    if (difference := target.difference(draft)) is not None:
        raise OptionError(
            f"{name} cannot draft for this model: {difference}; take a smaller model of the same "
            "family."
        )


class ModelGuesses:
    """A source of guesses for one sequence.

    Args:
        draft_model: makes them.
        ids: of the prompt.
        pace: says how many are worth making.
    """

    def __init__(self, draft_model: DraftModel, ids: Iterable[int], pace: Pace) -> None:
        self._draft_model, self._pace = draft_model, pace
        self._ids = list(ids)
        self._agreed = 0  # ids that the KV cache is known to begin with
        self._chances = Chances(PRIOR)
        self._at_large = Chances((AT_LARGE,))
        self._pending: list[tuple[int, int]] = []  # guesses that were made, with their kinds

    def draft(self, most: int) -> Draft:
        """Up to `most` guesses."""
        cost = self._draft_model.cost(self._pace)
        count, gain = self._pace.worth(self._at_large.of(0), cost, len(self._ids), most)
        self._pending = []
        if not count or not self._may_read(cost, count, gain):
            return Draft()
        started = time.perf_counter()
        guesses: list[int] = []
        chances: list[float] = []
        right = 1.0
        ahead = self._ids[self._agreed :]
        while len(guesses) < count and right >= LEAST_RIGHT:
            token, share = self._draft_model.best(ahead)
            if token >= self._draft_model.vocab_size:
                break
            kind = sum(each <= share for each in SHARES) - 1
            self._pending.append((token, kind))
            guesses.append(token)
            chances.append(self._chances.of(kind))
            right *= chances[-1]
            ahead = [token]
        return Draft(guesses, chances, time.perf_counter() - started)

    def follow(self, token: int) -> None:
        """Take the next token of the sequence."""
        self._ids.append(token)
        if self._pending:
            guess, kind = self._pending.pop(0)
            self._chances.note(kind, guess == token)
            self._at_large.note(0, guess == token)
            if guess != token:
                self._pending = []
        else:
            self._at_large.fade(0)

    def _may_read(self, cost: float, count: int, gain: float) -> bool:
        """Have the KV cache begin like the text; False: what is missing is not worth reading."""
        cache, ids = self._draft_model.model.kv_cache, self._ids
        most = min(len(cache), len(ids) - 1)
        self._agreed = min(self._agreed, most)
        while self._agreed < most and cache.ids[self._agreed] == ids[self._agreed]:
            self._agreed += 1
        missing = (len(ids) - self._agreed) * cost * PROMPT_SHARE
        if len(ids) + count > cache.max_context or missing > MOST_AHEAD * (1 - 1 / gain):
            return False
        cache.trim(self._agreed)
        return True
