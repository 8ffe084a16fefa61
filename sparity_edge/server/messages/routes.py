"""Routes of Anthropic's protocol: /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from sparity_edge.errors import SparityError
from sparity_edge.server.dial.followed import PLAN_HEADER, followed
from sparity_edge.server.errors.refusals import demand_model, status_of
from sparity_edge.server.errors.shapes import ANTHROPIC, error_body
from sparity_edge.server.messages.answers import PING, MessageAnswer
from sparity_edge.server.messages.bodies import CountBody, MessagesBody
from sparity_edge.server.messages.calls import message_sequence, talk_of
from sparity_edge.server.scheduler import Scheduler
from sparity_edge.server.sending.sse import named_event
from sparity_edge.server.sending.streams import Streams
from sparity_edge.server.sending.whole import whole

PING_SECONDS = 10.0  # of silence, after which a stream tells that it is alive


def add_messages(app: FastAPI, scheduler: Scheduler, name: str) -> None:
    """Serve Anthropic's Messages.

    Args:
        app: gets the routes.
        scheduler: decodes.
        name: what the model is called.
    """
    loaded = scheduler.loaded

    @app.post(ANTHROPIC)
    async def messages(request: Request, body: MessagesBody) -> Response:
        demand_model(body.model, name)
        sequence, reader = await asyncio.to_thread(message_sequence, loaded, body)
        plan = await asyncio.to_thread(followed, loaded, body) or scheduler.followed
        headers = {PLAN_HEADER: str(plan.setting)}
        streams = Streams(scheduler, [sequence], plan)
        answer = MessageAnswer(name, sequence, reader, body.max_tokens, bool(body.tools))
        if body.stream:
            events = _events(streams, answer)
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        completions = await whole(request, streams, 1)
        if completions is None:
            return Response(status_code=499)  # nobody reads it
        return JSONResponse(answer.complete(completions[0].text), headers=headers)

    @app.post(f"{ANTHROPIC}/count_tokens")
    async def count_tokens(body: CountBody) -> dict[str, Any]:
        demand_model(body.model, name)
        talk = await asyncio.to_thread(talk_of, loaded, body)
        return {"input_tokens": len(talk.ids)}


async def _events(streams: Streams, answer: MessageAnswer) -> AsyncIterator[str]:
    """The answer as server-sent events; an error behind the first is an event as well."""
    begun = False
    try:
        async for found in streams.steps_or_pauses(PING_SECONDS):
            if not begun:
                for event in answer.begin():
                    yield named_event(event)
            elif found is None:
                yield named_event(PING)
            begun = True
            if found is not None:
                for event in answer.go_on(found[1]):
                    yield named_event(event)
    except SparityError as error:
        yield named_event(error_body(status_of(error), str(error), path=ANTHROPIC))
    finally:
        streams.cancel()
