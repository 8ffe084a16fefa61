"""A client of HTTP servers that costs little CPU: keeps what arrives and when, to be read later.

Client and server share the cores of one machine, so that a client that decoded every event at once
would slow the server down. Each request has a connection of its own. Knows nothing of models.
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EVENT = re.compile(rb"\ndata: ([^\n]*)\n")
HOST = "127.0.0.1"


@dataclass
class Answer:
    """What came back, and when.

    Args:
        started: when the request was sent; of `time.perf_counter`.
        marks: of each part that arrived, the time and how many bytes there were with it.
        raw: all bytes, headers included.
    """

    started: float
    marks: list[tuple[float, int]] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)

    @property
    def status(self) -> int:
        """Of HTTP; 0: nothing came."""
        words = self.raw[:64].split(b" ", 2)
        return int(words[1]) if len(words) > 2 else 0

    @property
    def ended(self) -> float:
        """When the last part came."""
        return self.marks[-1][0] if self.marks else self.started

    @property
    def headers(self) -> dict[str, str]:
        """By their names in lower case."""
        lines = bytes(self.raw).partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines)
        return {name.lower(): value.strip() for name, _, value in pairs}

    def body(self) -> bytes:
        """Without the frames of chunks."""
        rest = bytes(self.raw).partition(b"\r\n\r\n")[2]
        if self.headers.get("transfer-encoding") != "chunked":
            return rest
        found = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            found, rest = found + rest[:length], rest[length + 2 :]
        return found

    def events(self) -> list[tuple[float, Any]]:
        """Server-sent events with the times at which they were whole; the closing one left out."""
        sizes = [size for _, size in self.marks]
        return [
            (self.marks[bisect.bisect_left(sizes, found.end())][0], json.loads(found[1]))
            for found in EVENT.finditer(bytes(self.raw))
            if found[1] != b"[DONE]"
        ]

    def token_times(self) -> list[float]:
        """When events with text came; the first one tells the time to the first token."""
        return [when for when, event in self.events() if _has_text(event)]

    def text(self) -> str:
        """Of a streamed answer."""
        return "".join(_text(event) for _, event in self.events())


def _has_text(event: Mapping[str, Any]) -> bool:
    """Whether it stands for a token, whose text may be empty; not so the last one with usage."""
    return bool(event.get("choices"))


def _text(event: Mapping[str, Any]) -> str:
    choices = event.get("choices") or [{}]
    return str(choices[0].get("text") or choices[0].get("delta", {}).get("content") or "")


class _Connection(asyncio.Protocol):
    """Keeps what arrives.

    Args:
        answer: is filled.
        pause: seconds that a reader who is slow waits after each part.
        leave: bytes after which it hangs up; None: never.
    """

    def __init__(self, answer: Answer, pause: float, leave: int | None) -> None:
        self._answer, self._pause, self._leave = answer, pause, leave
        self._transport: Any = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._answer.raw += data
        self._answer.marks.append((time.perf_counter(), len(self._answer.raw)))
        if self._leave is not None and len(self._answer.raw) >= self._leave:
            self._transport.abort()
        elif self._pause:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(self._pause, self._go_on)

    def connection_lost(self, _: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def _go_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """The bytes of a request.

    Args:
        method: of HTTP.
        path: with a slash in front.
        body: JSON, or what is none.
    """
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def exchange(
    port: int,
    sent: bytes,
    *,
    pause: float = 0.0,
    leave: int | None = None,
    leave_after: float | None = None,
) -> Answer:
    """Send bytes on a new connection, and wait until the other side closes it.

    Args:
        port: of this machine.
        sent: the whole request.
        pause: seconds that a reader who is slow waits after each part.
        leave: bytes of the answer after which this side hangs up.
        leave_after: seconds after which it does.
    """
    answer = Answer(time.perf_counter())
    loop = asyncio.get_running_loop()
    transport, connection = await loop.create_connection(
        lambda: _Connection(answer, pause, leave), HOST, port
    )
    answer.started = time.perf_counter()
    transport.write(sent)
    try:
        await asyncio.wait_for(connection.over, leave_after)
    except asyncio.TimeoutError:  # another class than the built-in one before Python 3.11
        transport.abort()
    return answer


def post(path: str, body: Mapping[str, Any]) -> bytes:
    """The bytes of a POST request with a JSON body."""
    return request("POST", path, json.dumps(body).encode())


def gaps(times: list[float]) -> list[float]:
    """Seconds between tokens."""
    return [after - before for before, after in itertools.pairwise(times)]
