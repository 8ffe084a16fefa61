"""Tickets of the scheduler: a sequence that was submitted, why one is refused, and what is counted.

Data, but for the errors. Knows nothing of how sequences are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sparity_edge.errors import SparityError
from sparity_edge.generation.results import Meter, Step
from sparity_edge.generation.sequence import DecodingSequence
from sparity_edge.generation.speculation.speculation import Speculation
from sparity_edge.model.kv_cache import KVCache
from sparity_edge.server.dial.followed import Followed

Listener = Callable[[Step | BaseException], None]


class UnavailableError(SparityError):
    """Nothing is decoded for now; asking again later may help."""


class QueueFullError(UnavailableError):
    """As many requests wait already as may."""


class ClosingError(UnavailableError):
    """The scheduler ends."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down; ask again later.")


@dataclass(eq=False)
class Ticket:
    """A sequence that was submitted.

    Args:
        sequence: not begun yet.
        listener: called from the scheduler's thread with each step, or with the error that ended
            the sequence.
        followed: what decoding skips.
    """

    sequence: DecodingSequence
    listener: Listener
    followed: Followed
    cancelled: bool = False  # whoever asked has gone: dropped before the next step
    cache: KVCache | None = None  # once it is being read
    reading: float = 0.0  # seconds that its prompt has taken so far
    begun: bool = False  # whether what is kept of its prompt was looked up
    speculation: Speculation | None = None  # once its prompt has been read

    def cancel(self) -> None:
        """Drop the sequence within one step."""
        self.cancelled = True

    def fail(self, error: SparityError) -> None:
        """End this sequence alone.

        Args:
            error: that the listener is told, unless nobody listens any more.
        """
        if not self.cancelled:
            self.listener(error)
        self.cancelled = True

    def let_go(self) -> None:
        """Drop what is large: listeners refer to tickets, and these to listeners, for a while."""
        self.cache = self.speculation = None

    @property
    def decodes(self) -> bool:
        """Whether it waits for a next token."""
        return self.speculation is not None and not self.sequence.finish_reason

    @property
    def unread(self) -> int:
        """Ids that have to be read before the next token can be chosen."""
        return len(self.sequence.ids) - (0 if self.cache is None else len(self.cache))


@dataclass
class Counts:
    """What has happened since the scheduler began."""

    requests: int = 0
    refused: int = 0  # the queue was full
    cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompts, taken over instead of being read
    generated_tokens: int = 0
    embedded_tokens: int = 0  # of texts made into vectors
    decode_passes: int = 0  # over the weights, for tokens after the first
    drafted_tokens: int = 0  # guesses that these read
    accepted_tokens: int = 0  # of them, those that were right
    busy_seconds: float = 0.0

    @contextmanager
    def a_pass(self, meters: Sequence[Meter]) -> Iterator[None]:
        """Count a pass, and what it drafts.

        Args:
            meters: of the sequences that it reads tokens of.
        """
        before = [(each.drafted, each.accepted) for each in meters]
        yield
        self.decode_passes += 1
        for meter, (drafted, accepted) in zip(meters, before, strict=True):
            self.drafted_tokens += meter.drafted - drafted
            self.accepted_tokens += meter.accepted - accepted
