"""The HTTP application: routes of OpenAI's protocol, and what watches over a server.

Bodies are checked by `bodies`, made into sequences by `calls`, decoded by the scheduler and shaped
by `answers`; here is who calls whom.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from sparity_edge.errors import OptionError, SparityError
from sparity_edge.generation.loaded_model import LoadedModel
from sparity_edge.generation.results import Statistics
from sparity_edge.generation.sequence import DecodingSequence
from sparity_edge.server.answers import ChatAnswer, TextAnswer
from sparity_edge.server.bodies import ChatBody, DetokenizeBody, Sampled, TextBody, TokenizeBody
from sparity_edge.server.calls import text_sequences
from sparity_edge.server.conversations.chat_calls import chat_sequences, turns_of
from sparity_edge.server.conversations.conversation import conversation
from sparity_edge.server.conversations.offer import Offer
from sparity_edge.server.dial.followed import PLAN_HEADER, followed
from sparity_edge.server.dial.routes import add_plans
from sparity_edge.server.document import add_document
from sparity_edge.server.embeddings.routes import add_embeddings
from sparity_edge.server.errors.refusals import add_refusals, demand_model, status_of
from sparity_edge.server.errors.shapes import error_body
from sparity_edge.server.messages.routes import add_messages
from sparity_edge.server.metrics import metrics_text
from sparity_edge.server.page_routes import add_page
from sparity_edge.server.responses.routes import add_responses
from sparity_edge.server.scheduler import Scheduler
from sparity_edge.server.sending.streams import Streams
from sparity_edge.server.sending.whole import whole
from sparity_edge.text.token_ids import checked_ids


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

    # The API in /openapi.json, and no pages about it: they load scripts from other hosts.
    app = FastAPI(
        title="sparity-edge",
        version=version("sparity-edge"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    add_refusals(app)
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
        demand_model(body.model, name)
        if body.stream_options and not body.stream:
            raise OptionError("stream_options needs stream=true; set it, or leave the options out.")
        # Templates and long texts take a while, and others are streamed to meanwhile.
        found = await asyncio.to_thread(sequences)
        plan = await asyncio.to_thread(followed, loaded, body) or scheduler.followed
        headers = {PLAN_HEADER: str(plan.setting)}
        streams = Streams(scheduler, found, plan)
        if body.stream:
            with_usage = bool(body.stream_options and body.stream_options.include_usage)
            events = _events(streams, answer, len(found), with_usage)
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        completions = await whole(request, streams, len(found))
        if completions is None:
            return Response(status_code=499)  # nobody reads it
        return JSONResponse(answer.complete(completions), headers=headers)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request, body: ChatBody) -> Response:
        shown = body.include_reasoning is not False
        answer = ChatAnswer(name, show, bool(body.logprobs), body.n, with_reasoning=shown)

        def sequences() -> Sequence[DecodingSequence]:
            found, readers = chat_sequences(loaded, body)
            answer.read_by(readers)
            return found

        return await answered(request, body, sequences, answer)

    @app.post("/v1/completions")
    async def completions(request: Request, body: TextBody) -> Response:
        answer = TextAnswer(name, show, body.logprobs is not None, body.n)
        return await answered(request, body, lambda: text_sequences(loaded, body), answer)

    add_messages(app, scheduler, name)
    add_responses(app, scheduler, name)
    add_embeddings(app, scheduler, name)
    add_page(app)
    _add_watching(app, scheduler, name)
    add_plans(app, scheduler)
    _add_token_ids(app, scheduler.loaded)
    add_document(app)
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

    @app.get("/metrics", response_class=PlainTextResponse)
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
            turns, offer = (
                turns_of(body.messages),
                Offer([each.told() for each in body.tools or ()]),
            )
            talk = await asyncio.to_thread(conversation, loaded, turns, None, offer)
            return {"tokens": talk.ids}
        if body.tools:
            raise OptionError("tools are told with messages only; leave them out.")
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
        yield _event(error_body(status_of(error), str(error)))
    finally:
        streams.cancel()


def _event(content: Any) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
