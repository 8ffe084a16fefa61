"""The HTTP application: routes of OpenAI's protocol, and what watches over a server.

Bodies are checked by `bodies`, made into sequences by `calls`, decoded by the scheduler and shaped
by `answers`; here is who calls whom, and which error becomes which status.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from sparity_edge.errors import OptionError, SparityError
from sparity_edge.generation.results import Completion, Statistics, Step
from sparity_edge.generation.sequence import DecodingSequence
from sparity_edge.server.answers import ChatAnswer, TextAnswer
from sparity_edge.server.bodies import ChatBody, DetokenizeBody, Sampled, TextBody, TokenizeBody
from sparity_edge.server.calls import chat_sequences, text_sequences
from sparity_edge.server.guard import error_body
from sparity_edge.server.metrics import metrics_text
from sparity_edge.server.scheduler import QueueFullError, Scheduler
from sparity_edge.server.streams import Streams
from sparity_edge.system.version import own_version

RETRY_AFTER = "2"  # seconds
GONE_POLL = 0.25  # seconds between two looks whether the client is still there


def make_app(scheduler: Scheduler, name: str) -> FastAPI:
    """The application.

    Args:
        scheduler: decodes; closed when the application ends.
        name: what the model is called; a request may name it or leave it out.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(scheduler.close)

    app = FastAPI(title="sparity-edge", version=own_version(), lifespan=lifespan)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(SparityError, _refused)
    app.add_exception_handler(HTTPException, _unknown)
    loaded = scheduler.loaded
    tokenizer = loaded.tokenizer

    def show(token: int) -> str:
        return tokenizer.decode([token], skip_special_tokens=False)

    async def answered(
        request: Request,
        body: Sampled,
        sequences: Callable[[], Sequence[DecodingSequence]],
        answer: ChatAnswer,
    ) -> Response:
        if body.model not in (None, "", name):
            raise HTTPException(404, f"There is no model {body.model!r} here, but {name!r}.")
        if body.stream_options and not body.stream:
            raise OptionError("stream_options needs stream=true; set it, or leave the options out.")
        # Templates and long texts take a while, and others are streamed to meanwhile.
        found = await asyncio.to_thread(sequences)
        streams = Streams(scheduler, found)
        if body.stream:
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            events = _events(streams, answer, len(found), with_usage)
            return StreamingResponse(events, media_type="text/event-stream")
        completions = await _whole(request, streams, len(found))
        if completions is None:
            return Response(status_code=499)  # nobody reads it
        return JSONResponse(answer.complete(completions))

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request, body: ChatBody) -> Response:
        answer = ChatAnswer(name, show, bool(body.logprobs), body.n)
        return await answered(request, body, lambda: chat_sequences(loaded, body), answer)

    @app.post("/v1/completions")
    async def completions(request: Request, body: TextBody) -> Response:
        answer = TextAnswer(name, show, body.logprobs is not None, body.n)
        return await answered(request, body, lambda: text_sequences(loaded, body), answer)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        entry = {"id": name, "object": "model", "created": 0, "owned_by": "sparity-edge"}
        return {"object": "list", "data": [entry]}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "running": scheduler.running, "waiting": scheduler.waiting}

    @app.get("/metrics")
    async def metrics() -> Response:
        return PlainTextResponse(metrics_text(scheduler), media_type="text/plain; version=0.0.4")

    @app.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> dict[str, Any]:
        if (body.content is None) == (body.messages is None):
            raise OptionError("Give either content or messages.")
        if body.messages is not None:
            turns = [message.turn() for message in body.messages]
            return {"tokens": await asyncio.to_thread(tokenizer.encode_chat, turns)}
        text, special = body.content or "", body.add_special
        return {"tokens": tokenizer.encode(text, add_special_tokens=special)}

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> dict[str, Any]:
        from sparity_edge.text.token_ids import checked_ids

        ids = checked_ids(body.tokens, loaded.config.vocab_size)
        return {"content": tokenizer.decode(ids, skip_special_tokens=False)}

    return app


async def _events(
    streams: Streams, answer: ChatAnswer, count: int, with_usage: bool
) -> AsyncIterator[str]:
    """The answer as server-sent events; an error behind the first is an event as well."""
    seen: set[int] = set()
    stats: list[Statistics | None] = [None] * count
    try:
        async for index, step in streams.steps():
            stats[index] = step.stats
            yield _event(answer.chunk(index, step, index not in seen))
            seen.add(index)
        if with_usage:
            yield _event(answer.last([each for each in stats if each is not None]))
        yield "data: [DONE]\n\n"
    except SparityError as error:
        yield _event(error_body(500, str(error)))
    finally:
        streams.cancel()


def _event(content: Any) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


async def _whole(request: Request, streams: Streams, count: int) -> list[Completion] | None:
    """All completions; None: the client has gone."""
    found: list[list[Step]] = [[] for _ in range(count)]

    async def collect() -> None:
        async for index, step in streams.steps():
            found[index].append(step)

    collecting = asyncio.ensure_future(collect())
    try:
        while not collecting.done():
            await asyncio.wait([collecting], timeout=GONE_POLL)
            if not collecting.done() and await request.is_disconnected():
                return None
        collecting.result()
    finally:
        streams.cancel()
        collecting.cancel()
    return [Completion.of(steps) for steps in found]


async def _unreadable(_: Request, error: Exception) -> Response:
    """What is wrong with a body: the first fault, with the name of its field and its value."""
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    field = ".".join(str(each) for each in fault["loc"] if each != "body") or None
    value = json.dumps(fault.get("input"), default=str)
    shown = value if len(value) <= 60 else value[:57] + "..."
    words = {
        "extra_forbidden": "is not served here; leave it out",
        "missing": "is missing; add it",
        "json_invalid": "no JSON; send a JSON object",
    }
    reason = words.get(fault["type"], f"is refused: {fault['msg']}")
    what = f"{field}={shown}" if field and fault["type"] != "missing" else field or "The body is"
    return JSONResponse(error_body(400, f"{what} {reason}.", field), 400)


async def _refused(_: Request, error: Exception) -> Response:
    if isinstance(error, QueueFullError):
        return JSONResponse(error_body(503, str(error)), 503, {"Retry-After": RETRY_AFTER})
    status = 400 if isinstance(error, ValueError) else 500
    return JSONResponse(error_body(status, str(error)), status)


async def _unknown(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(error_body(error.status_code, str(error.detail)), error.status_code)
