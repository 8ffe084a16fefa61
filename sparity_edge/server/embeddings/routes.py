"""The route of OpenAI's Embeddings: /v1/embeddings."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from sparity_edge.arrays import Floats
from sparity_edge.server.embeddings.bodies import EmbeddingsBody
from sparity_edge.server.embeddings.calls import texts_of
from sparity_edge.server.embeddings.pooling import PooledTexts
from sparity_edge.server.errors.refusals import demand_model
from sparity_edge.server.scheduler import Scheduler
from sparity_edge.server.sending.whole import done_before_gone


def add_embeddings(app: FastAPI, scheduler: Scheduler, name: str) -> None:
    """Serve OpenAI's Embeddings.

    Args:
        app: gets the route.
        scheduler: has texts read between the steps of what it decodes.
        name: what the model is called.
    """
    loaded = scheduler.loaded

    @app.post("/v1/embeddings")
    async def embeddings(request: Request, body: EmbeddingsBody) -> Response:
        demand_model(body.model, name)
        ids = await asyncio.to_thread(texts_of, loaded, body)
        texts, over = _listened(ids, body.pooling == "last")
        scheduler.submit_texts(texts)
        try:
            if not await done_before_gone(request, over):
                return Response(status_code=499)  # nobody reads it
            over.result()
        finally:
            texts.cancel()
        return await asyncio.to_thread(_answer, name, body, texts)


def _listened(ids: list[list[int]], last: bool) -> tuple[PooledTexts, asyncio.Future[None]]:
    """Texts, and what is done when they are read."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if over.done():  # nobody waits any more
            return
        if error is None:
            over.set_result(None)
        else:
            over.set_exception(error)

    def listen(error: BaseException | None) -> None:
        try:
            loop.call_soon_threadsafe(settle, error)
        except RuntimeError:  # the loop is closed: the server is going down
            texts.cancel()

    texts = PooledTexts(ids, last, listen)
    return texts, over


def _answer(name: str, body: EmbeddingsBody, texts: PooledTexts) -> Response:
    data = [
        {"object": "embedding", "index": index, "embedding": _shaped(vector, body)}
        for index, vector in enumerate(texts.vectors)
    ]
    content = {
        "object": "list",
        "data": data,
        "model": name,
        "usage": {"prompt_tokens": texts.tokens, "total_tokens": texts.tokens},
        "pooling": body.pooling,
        "normalized": body.normalize,
    }
    return JSONResponse(content)


def _shaped(vector: Floats, body: EmbeddingsBody) -> Any:
    length = float(np.linalg.norm(vector))
    if body.normalize and length > 0:
        vector = vector / np.float32(length)
    if body.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()
