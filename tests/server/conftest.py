"""A server of a tiny model on loopback, and what asks it."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tool_templates as templates
from serving_tiny import KEY, NAME, Ask, Say

from sparity_edge import Generator

pytest.importorskip("uvicorn", reason="the extra [server] is not installed")
import uvicorn

from sparity_edge.generation.sequence import DecodingSequence, sequence_of
from sparity_edge.server.app import make_app
from sparity_edge.server.conversations import chat_calls
from sparity_edge.server.guard import LOOPBACK, Guard
from sparity_edge.server.messages import calls as message_calls
from sparity_edge.server.run import bound, config_of
from sparity_edge.server.scheduler import Scheduler


@pytest.fixture(scope="package")
def generator(checkpoint: Callable[[str], Path]) -> Iterator[Generator]:
    with Generator.load(checkpoint("llama_gqa"), dtype="f32", threads=2) as loaded:
        yield loaded


@pytest.fixture(scope="package")
def scheduler(generator: Generator) -> Iterator[Scheduler]:
    made = Scheduler(generator.twin().loaded)
    yield made
    made.close()
    made.loaded.close()


@pytest.fixture(scope="package")
def address(scheduler: Scheduler) -> Iterator[str]:
    """Where the tiny model is served."""
    with bound("127.0.0.1", 0) as listening:
        guarded = Guard(make_app(scheduler, NAME), LOOPBACK, KEY)
        server = uvicorn.Server(config_of(guarded))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="package")
def client(address: str) -> Iterator[Any]:
    """OpenAI's own client."""
    openai = pytest.importorskip("openai", reason="the extra [test] is not installed")
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as opened:
        yield opened


@pytest.fixture(scope="package")
def ask(address: str) -> Ask:
    """ask(path, body=None, **headers) -> (status, decoded body or text)."""

    def asked(path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}
        request = urllib.request.Request(address + path, data, given)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, content = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read().decode()
        try:
            return status, json.loads(content)
        except json.JSONDecodeError:
            return status, content

    return asked


@pytest.fixture
def say(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> Iterator[Say]:
    """say(text, template): what the model answers from now on (None: what it likes), by which."""
    tokenizer = scheduler.loaded.tokenizer

    def forget() -> None:
        tokenizer._template = None
        tokenizer.__dict__.pop("tool_use", None)

    def said(text: str | None, template: str = templates.HERMES) -> None:
        monkeypatch.setattr(tokenizer, "chat_template", template)
        forget()
        if text is None:
            return
        end = next(iter(scheduler.loaded.end_ids))
        ids = [*tokenizer.encode(text, add_special_tokens=False), end]

        def scripted(*args: Any, **kwargs: Any) -> DecodingSequence:
            sequence = sequence_of(*args, **kwargs)
            sequence.choose = lambda *_: (ids[sequence.generated], None, {})  # type: ignore[method-assign]
            return sequence

        for calls in (chat_calls, message_calls):
            monkeypatch.setattr(calls, "sequence_of", scripted)

    yield said
    monkeypatch.undo()
    forget()
