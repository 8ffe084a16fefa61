"""Clients that send headers slowly, without end or too many: told so, and let go of."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("uvicorn", reason="the extra [server] is not installed")
import uvicorn

from sparity_edge.server import guard, patience
from sparity_edge.server.guard import LOOPBACK, Guard, Message, Receive, Scope, Send
from sparity_edge.server.run import HEADER_BYTES, bound, config_of


async def greet(_: Scope, __: Receive, send: Send) -> None:
    """An application that says hello."""
    message: Message = {"type": "http.response.start", "status": 200, "headers": []}
    await send({**message, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with bound("127.0.0.1", 0) as listening:
        server = uvicorn.Server(config_of(Guard(greet, LOOPBACK, None)))
        server.config.lifespan = "off"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join()


def answer_to(port: int, *parts: bytes) -> bytes:
    """What comes back, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        for part in parts:
            connection.sendall(part)
        found = b""
        while more := connection.recv(4096):
            found += more
    return found


HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize("parts", [(), (b"GET / HT",), (HEAD,), (HEAD, b"\r\nGET /")])
def test_headers_that_do_not_end_are_given_up(
    port: int, monkeypatch: pytest.MonkeyPatch, parts: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(patience, "HEADER_SECONDS", 0.05)
    found = answer_to(port, *parts)
    head, _, body = found[found.rindex(b"HTTP/1.1") :].partition(b"\r\n\r\n")
    assert b"408" in head.split(b"\r\n")[0]
    assert "headers took too long" in json.loads(body)["error"]["message"]
    assert (b"hello" in found) == (len(parts) == 2)


def test_a_request_in_time_is_answered(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "HEADER_SECONDS", 0.2)
    ended = HEAD + b"Connection: close\r\n\r\n"
    for parts in ((ended,), (HEAD, b"X: y\r\nConnection: close\r\n\r\n")):
        assert answer_to(port, *parts).endswith(b"hello")


def test_headers_have_a_size(port: int) -> None:
    found = answer_to(port, HEAD, b"X: " + b"y" * HEADER_BYTES)
    assert b"400" in found.split(b"\r\n")[0]


def test_a_body_that_does_not_end_is_given_up(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    found = answer_to(port, HEAD.replace(b"GET", b"POST") + b"Content-Length: 5\r\n\r\n", b"ab")
    assert b"408" in found.split(b"\r\n")[0]
    assert b"The body took too long" in found
