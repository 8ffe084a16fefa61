"""What a request must have before it is looked at: a known host, the key, a body of bounded size.

Written against ASGI itself: a body that is too long or too slow is refused while it arrives, and
the application gets a whole one. Knows nothing of routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from sparity_edge.server.errors.shapes import clipped, error_body
from sparity_edge.server.page_routes import PATHS

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 8 << 20  # bytes: more than the longest context holds
BODY_SECONDS = 30.0  # that a body may take to arrive
LINGER_SECONDS = 5.0  # that what a refused client still sends is read
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
TOO_LONG = (413, f"The body is longer than {MAX_BODY >> 20} MB; shorten it.")
NO_KEY = (
    401,
    "The API key is missing or wrong; send it as `Authorization: Bearer KEY` or `x-api-key: KEY`.",
)
OPEN = frozenset({"/health", *PATHS})  # without a key: the page asks for it


class Guard:
    """Lets a request through to `app`, or answers it itself.

    Args:
        app: what it guards.
        hosts: names that the Host header may have; empty: any. A page of a stranger that points a
            name of its own at this machine (DNS rebinding) is refused by it.
        key: that requests must carry; None: none.
    """

    def __init__(self, app: App, hosts: Iterable[str], key: str | None) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # as GET; the server leaves the body out
            scope = {**scope, "method": "GET"}
        headers = {name.lower(): value for name, value in scope["headers"]}
        refusal = self._refusal(scope["path"], headers)
        if refusal is not None:
            await _refuse(scope, receive, send, *refusal)
            return
        try:
            body = await asyncio.wait_for(_body(receive), BODY_SECONDS)
        except asyncio.TimeoutError:  # another class than the built-in one before Python 3.11
            sentence = "The body took too long to arrive; send it again."
            await _refuse(scope, receive, send, 408, sentence)
            return
        if body is None:
            await _refuse(scope, receive, send, *TOO_LONG)
            return
        await self._app(scope, _replayed(body, receive), send)

    def _refusal(self, path: str, headers: MutableMapping[bytes, bytes]) -> tuple[int, str] | None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if self._hosts and name not in self._hosts:
            return (
                403,
                f"The Host header {clipped(host)!r} is another server's; use this one's.",
            )
        if self._key is not None and path not in OPEN and not self._has_key(headers):
            return NO_KEY
        if _length(headers) > MAX_BODY:
            return TOO_LONG
        return None

    def _has_key(self, headers: MutableMapping[bytes, bytes]) -> bool:
        """As OpenAI's clients send it, or as Anthropic's do."""
        kind, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = headers.get(b"x-api-key", bearer if kind.lower() == b"bearer" else b"")
        return hmac.compare_digest(given, self._key or b"")


def _length(headers: MutableMapping[bytes, bytes]) -> int:
    length = headers.get(b"content-length", b"0")
    return int(length) if length.isdigit() and len(length) < 20 else 0


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None: it is too long. A client that goes away ends it."""
    parts, arrived, more = [], 0, True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        arrived += len(parts[-1])
        if arrived > MAX_BODY:
            return None
        more = message.get("more_body", False)
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body in one piece, then what else arrives."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, sentence: str) -> None:
    """Answer, and read on for a while: closing with unread bytes resets a connection, which would
    take the answer from a client that sends its whole body before it reads."""
    body = json.dumps(error_body(status, sentence, path=scope["path"])).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_drained(receive), LINGER_SECONDS)
    await send({"type": "http.response.body", "body": b""})


async def _drained(receive: Receive) -> None:
    while (await receive()).get("more_body", False):
        pass
