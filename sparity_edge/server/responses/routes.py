"""The route of OpenAI's Responses: /v1/responses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from sparity_edge.errors import SparityError
from sparity_edge.server.dial.followed import PLAN_HEADER, followed
from sparity_edge.server.errors.refusals import demand_model
from sparity_edge.server.responses.answers import ResponseAnswer
from sparity_edge.server.responses.bodies import ResponsesBody
from sparity_edge.server.responses.calls import response_params, response_sequence
from sparity_edge.server.scheduler import Scheduler
from sparity_edge.server.sending.sse import named_event
from sparity_edge.server.sending.streams import Streams
from sparity_edge.server.sending.whole import whole


def add_responses(app: FastAPI, scheduler: Scheduler, name: str) -> None:
    """Serve OpenAI's Responses; none is stored.

    Args:
        app: gets the route.
        scheduler: decodes.
        name: what the model is called.
    """
    loaded = scheduler.loaded

    def show(token: int) -> str:
        return loaded.tokenizer.decode([token], skip_special_tokens=False)

    @app.post("/v1/responses")
    async def responses(request: Request, body: ResponsesBody) -> Response:
        demand_model(body.model, name)
        params = response_params(loaded, body)
        sequence = await asyncio.to_thread(response_sequence, loaded, body, params)
        plan = await asyncio.to_thread(followed, loaded, body) or scheduler.followed
        headers = {PLAN_HEADER: str(plan.setting)}
        streams = Streams(scheduler, [sequence], plan)
        answer = ResponseAnswer(name, body, params, show)
        if body.stream:
            events = _events(streams, answer)
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        completions = await whole(request, streams, 1)
        if completions is None:
            return Response(status_code=499)  # nobody reads it
        return JSONResponse(answer.complete(completions[0]), headers=headers)


async def _events(streams: Streams, answer: ResponseAnswer) -> AsyncIterator[str]:
    """The answer as server-sent events; an error behind the first is an event as well."""
    try:
        for event in answer.begin():
            yield named_event(event)
        async for _, step in streams.steps():
            for event in answer.go_on(step):
                yield named_event(event)
    except SparityError as error:
        yield named_event(answer.failed(str(error)))
    finally:
        streams.cancel()
