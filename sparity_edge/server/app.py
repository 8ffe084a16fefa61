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
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.generation.results import Completion, Statistics, Step
from sparity_edge.generation.sequence import DecodingSequence
from sparity_edge.server.answers import ChatAnswer, TextAnswer
from sparity_edge.server.bodies import ChatBody, DetokenizeBody, Sampled, TextBody, TokenizeBody
from sparity_edge.server.calls import chat_sequences, text_sequences
from sparity_edge.server.guard import clipped, error_body
from sparity_edge.server.metrics import metrics_text
from sparity_edge.server.scheduler import QueueFullError, Scheduler
from sparity_edge.server.streams import Streams
from sparity_edge.text.token_ids import checked_ids

RETRY_AFTER = "2"  # seconds
GONE_POLL = 0.25  # seconds between two looks whether the client is still there


def make_app(scheduler: Scheduler, name: str) -> FastAPI:
    """The application.

    Args:
        scheduler: decodes; closed when the application ends.
        name: what the model is called; a request may name it or leave it out.

    Returns:
        For an ASGI server, to be put behind a `Guard`.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(scheduler.close)

    # No pages about the API: they load scripts from other hosts. No redirections either.
    app = FastAPI(openapi_url=None, redirect_slashes=False, lifespan=lifespan)
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
            raise HTTPException(
                404, f"There is no model {clipped(body.model)!r} here, but {name!r}."
            )
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

    _add_watching(app, scheduler, name)
    _add_token_ids(app, scheduler.loaded)
    return app


def _add_watching(app: FastAPI, scheduler: Scheduler, name: str) -> None:
    """Routes that tell what is served and how it fares."""

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


def _add_token_ids(app: FastAPI, loaded: LoadedModel) -> None:
    """Routes from texts to token ids and back."""
    tokenizer = loaded.tokenizer

    @app.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> dict[str, Any]:
        if (body.content is None) == (body.messages is None):
            raise OptionError("Give either content or messages.")
        if body.messages is not None:
            turns = [message.turn() for message in body.messages]
            return {"tokens": await asyncio.to_thread(tokenizer.encode_chat, turns)}
        text, special = body.content or "", body.add_special
        ids = await asyncio.to_thread(tokenizer.encode, text, add_special_tokens=special)
        return {"tokens": ids}

    @app.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> dict[str, Any]:
        ids = checked_ids(body.tokens, loaded.config.vocab_size)
        return {"content": await asyncio.to_thread(tokenizer.decode, ids, False)}


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
    """What is wrong with a body: the innermost fault, with the name of its field and its value."""
    assert isinstance(error, RequestValidationError)
    fault = max(error.errors(), key=lambda each: len(each["loc"]))  # the first of several
    kind, place = fault["type"], [each for each in fault["loc"][1:] if not _is_type(each)]
    if kind == "json_invalid" or not place:
        sentence = "The body is no JSON object; send one, and Content-Type: application/json."
        return JSONResponse(error_body(400, sentence), 400)
    field = clipped(".".join(str(each) for each in place))
    value = clipped(json.dumps(fault.get("input"), default=str))
    words = {"extra_forbidden": "is not served here; leave it out", "missing": "is missing; add it"}
    reason = words.get(kind, f"is refused: {fault['msg']}")
    what = field if kind == "missing" else f"{field}={value}"
    return JSONResponse(error_body(400, f"{what} {reason}.", field), 400)


def _is_type(part: object) -> bool:
    """Whether a part of a fault's place is one of the types that a field may have."""
    return isinstance(part, str) and (part == "str" or "[" in part)


async def _refused(_: Request, error: Exception) -> Response:
    if isinstance(error, QueueFullError):
        return JSONResponse(error_body(503, str(error)), 503, {"Retry-After": RETRY_AFTER})
    status = 400 if isinstance(error, ValueError) else 500
    return JSONResponse(error_body(status, str(error)), status)


async def _unknown(request: Request, error: Exception) -> Response:
    """What the framework refuses in words without a remedy, and a model of another name."""
    assert isinstance(error, HTTPException)
    status, path = error.status_code, clipped(request.url.path)
    sentences = {
        "Not Found": f"There is nothing at {path!r}; chats are at /v1/chat/completions.",
        "Method Not Allowed": f"{path!r} does not take {clipped(request.method)}; use the other "
        "one of GET and POST.",
        "There was an error parsing the body": "The body is no JSON that can be read: it is "
        "nested too deeply, or has a number of thousands of digits; send another.",
    }
    sentence = sentences.get(str(error.detail), str(error.detail))
    return JSONResponse(error_body(status, sentence), status, error.headers)
