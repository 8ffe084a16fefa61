"""A server that ends tells those whose answers are under way, and prints no traceback."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import urllib.request

import pytest

pytest.importorskip("uvicorn", reason="the extra [server] is not installed")
import uvicorn
from fastapi.testclient import TestClient

from sparity_edge import Generator
from sparity_edge.server import run
from sparity_edge.server.app import make_app
from sparity_edge.server.scheduler import Scheduler


def test_answers_under_way_end_with_a_sentence(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run, "GRACE", 0.1)
    monkeypatch.setattr(Scheduler, "_advance", lambda _: time.sleep(0.01))  # none gets on
    twin = generator.twin()
    scheduler = Scheduler(twin.loaded)
    body = json.dumps({"prompt": "a", "stream": True, "ignore_eos": True}).encode()
    with run.bound("127.0.0.1", 0) as listening:
        app = make_app(scheduler, "tiny")
        server = run.Server(uvicorn.Config(app, log_level="warning"), scheduler)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1/completions"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert b"data: {" in answer.readline()
            server.should_exit = True
            assert b"The server is shutting down" in answer.read()
        thread.join(30)
    assert not thread.is_alive()
    assert not caplog.records
    twin.close()


def test_a_server_that_ends_is_not_available(generator: Generator) -> None:
    scheduler = Scheduler(generator.twin().loaded)
    client = TestClient(make_app(scheduler, "tiny"))
    scheduler.close()
    answer = client.post("/v1/completions", json={"prompt": "a"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.json()["error"]["type"] == "overloaded_error"
    scheduler.loaded.close()


def test_only_answers_cut_off_are_not_logged() -> None:
    for error, told in ((asyncio.CancelledError(), False), (ValueError(), True)):
        found = (type(error), error, None)
        record = logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, "x", None, found)
        assert run._tells(record) == told
