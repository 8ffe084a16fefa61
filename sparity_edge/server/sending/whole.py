"""Answers in one piece: all steps are waited for, and dropped if the client goes away meanwhile."""

from __future__ import annotations

import asyncio

from fastapi import Request

from sparity_edge.generation.results import Completion, Step
from sparity_edge.server.sending.streams import Streams

GONE_POLL = 0.25  # seconds between two looks whether the client is still there


async def whole(request: Request, streams: Streams, count: int) -> list[Completion] | None:
    """The completions of some sequences.

    Args:
        request: that asked for them.
        streams: their steps.
        count: how many sequences there are.

    Returns:
        All of them, in order; None: the client has gone.

    Raises:
        BaseException: what ended one of the sequences, as the scheduler tells it.
    """
    found: list[list[Step]] = [[] for _ in range(count)]

    async def collect() -> None:
        async for index, step in streams.steps():
            found[index].append(step)

    collecting = asyncio.ensure_future(collect())
    try:
        if not await done_before_gone(request, collecting):
            return None
        collecting.result()
    finally:
        streams.cancel()
        collecting.cancel()
    return [Completion.of(steps) for steps in found]


async def done_before_gone(request: Request, work: asyncio.Future[None]) -> bool:
    """Wait for something; whether it is done, or the client that asked for it has gone.

    Args:
        request: that asked for it.
        work: what is waited for; goes on if the client has gone.
    """
    while not work.done():
        await asyncio.wait([work], timeout=GONE_POLL)
        if not work.done() and await request.is_disconnected():
            return False
    return True
