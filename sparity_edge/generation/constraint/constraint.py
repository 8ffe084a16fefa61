"""Constraint: what texts must follow; and ConstraintState: how far one text has followed it.

A state tells which tokens may come next, those that must come (forced tokens) without a look at the
logits, and whether the text is complete. It knows nothing of models or of how tokens are chosen.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sparity_edge.errors import OptionError

if TYPE_CHECKING:
    from llguidance import LLMatcher

Mask = npt.NDArray[np.bool_]

# Of computing, for one question to the matcher: a thousand times what schemas take. A text that
# follows what takes longer ends, so that others need not wait for it again.
MOST_SECONDS = 0.25


class Constraint:
    """A grammar compiled for one model; any number of texts may follow it at once.

    Args:
        matcher: at the beginning of a text; only copies of it move.
        vocab_size: length of masks.
        field: what the user calls it, for errors.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int, field: str) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._field = field

    def begin(self) -> ConstraintState:
        """The state of a text that has not begun."""
        return ConstraintState(self._matcher.deep_copy(), self._vocab_size, self._field)

    def demand_possible(self) -> None:
        """Refuse what cannot be read, and what no text follows.

        Raises:
            OptionError: it is such a one.
        """
        _demand_sound(self._matcher, self._field)
        self.begin().look()


class ConstraintState:
    """How far one text has followed its constraint.

    Args:
        matcher: of this text alone.
        vocab_size: length of masks.
        field: what the user calls the constraint, for errors.
    """

    def __init__(self, matcher: LLMatcher, vocab_size: int, field: str) -> None:
        self._matcher = matcher  # behind the forced tokens
        self._vocab_size = vocab_size
        self._field = field
        self._forced: deque[int] = deque()
        self._mask: Mask | None = None  # of what may follow the forced tokens
        self._known = False  # whether forced tokens have been looked for

    def look(self) -> None:
        """Find out what may come next, if that has not been done.

        Raises:
            OptionError: nothing can, or finding it takes too much.
        """
        if not self._known:
            with self._asked() as matcher:
                forced = matcher.compute_ff_tokens()
                if forced:
                    matcher.consume_tokens(forced)
                    self._forced.extend(forced)
            self._known = True
        if not self._forced:
            self.mask()

    def forced(self, most: int | None = None) -> list[int]:
        """The tokens that must come next, as many as are known.

        Args:
            most: of them that are asked for; None: all.
        """
        self.look()
        return list(itertools.islice(self._forced, most))

    def mask(self) -> Mask:
        """Which tokens may come behind those that are forced, (vocab_size,) bool.

        Raises:
            OptionError: none may, or finding it takes too much.
        """
        if self._mask is None:
            with self._asked() as matcher:
                bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
            mask = np.unpackbits(bits, count=self._vocab_size, bitorder="little").view(np.bool_)
            if not mask.any():
                raise OptionError(f"{self._field} cannot be followed: no token may come next.")
            self._mask = mask
        return self._mask

    def follow(self, token: int) -> None:
        """Go on behind the next token, one that may come.

        Args:
            token: its id.
        """
        self.look()
        if self._forced:
            must = self._forced.popleft()
            assert token == must, (token, must)
        else:
            with self._asked() as matcher:
                matcher.consume_token(token)
            self._mask, self._known = None, False

    @property
    def complete(self) -> bool:
        """Whether nothing but the end of the text may come next."""
        return not self._forced and self._matcher.is_stopped()

    @contextmanager
    def _asked(self) -> Iterator[LLMatcher]:
        """The matcher, to be asked something; raises where that fails or takes too long."""
        started = time.thread_time()  # of the processor: other programs do not count
        yield self._matcher
        _demand_sound(self._matcher, self._field)
        if time.thread_time() - started > MOST_SECONDS:
            raise OptionError(
                f"{self._field} takes too long to follow: a token more than {MOST_SECONDS} seconds "
                "of computing; make it simpler."
            )


def _demand_sound(matcher: LLMatcher, field: str) -> None:
    """Raise OptionError where the matcher has met a fault, which it never leaves again."""
    if not matcher.is_error():
        return
    words = matcher.get_error().replace("<non-verbose/>", "").strip()
    reason = " ".join(words.split())[:300]
    if words.startswith("NoExtension"):
        reason = "no text does"
    raise OptionError(f"{field} cannot be followed: {reason}.")
