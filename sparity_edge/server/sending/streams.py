"""Steps from the scheduler's thread to coroutines: waiting for them, and dropping what is unwanted.

Knows nothing of HTTP's shapes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from sparity_edge.generation.results import Step
from sparity_edge.generation.sequence import DecodingSequence
from sparity_edge.server.dial.followed import Followed
from sparity_edge.server.scheduler import Scheduler
from sparity_edge.server.tickets import Listener, Ticket


class Streams:
    """The steps of some sequences, as they come.

    Args:
        scheduler: decodes them.
        sequences: none begun yet.
        followed: what decoding skips; None: as the scheduler does for whoever does not ask.

    Raises:
        QueueFullError: too many wait already; none of them is decoded then.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        sequences: Sequence[DecodingSequence],
        followed: Followed | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._steps: asyncio.Queue[tuple[int, Step | BaseException]] = asyncio.Queue()
        self._left = len(sequences)
        self._tickets: list[Ticket] = []
        try:
            for index, sequence in enumerate(sequences):
                listener = self._listener(index)
                self._tickets.append(scheduler.submit(sequence, listener, followed))
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Have what is not over dropped."""
        for ticket in self._tickets:
            ticket.cancel()

    async def steps(self) -> AsyncIterator[tuple[int, Step]]:
        """Each step with the number of its sequence; closing it drops what is not over.

        Raises:
            BaseException: what ended one of the sequences, as the scheduler tells it.
        """
        try:
            async for found in self.steps_or_pauses(None):
                if found is not None:
                    yield found
        finally:
            self.cancel()

    async def steps_or_pauses(
        self, seconds: float | None
    ) -> AsyncIterator[tuple[int, Step] | None]:
        """As `steps`, and None whenever nothing has come for so long.

        Args:
            seconds: None: no pause is told.
        """
        try:
            while self._left:
                try:
                    index, step = await asyncio.wait_for(self._steps.get(), seconds)
                except asyncio.TimeoutError:  # not the built-in one before Python 3.11
                    yield None
                    continue
                if isinstance(step, BaseException):
                    raise step
                self._left -= step.finish_reason is not None
                yield index, step
        finally:
            self.cancel()

    def _listener(self, index: int) -> Listener:
        def listen(step: Step | BaseException) -> None:
            try:
                self._loop.call_soon_threadsafe(self._steps.put_nowait, (index, step))
            except RuntimeError:  # the loop is closed: the server is going down
                self.cancel()

        return listen
