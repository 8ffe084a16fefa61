"""Servers in processes of their own: ours and llama.cpp's `llama-server`, started and ended.

What is asked of them is the scripts' matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from server.client import HOST, exchange, post, request

START_SECONDS = 300.0  # that a server may take to load, compiling included


class Served:
    """A server that runs.

    Args:
        command: what starts it, without the port.
    """

    def __init__(self, command: Sequence[str]) -> None:
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port = int(free.getsockname()[1])
        self._name = Path(command[0]).name
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        asyncio.run(self._ready())

    async def _ready(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                if (await exchange(self.port, request("GET", "/health"))).status == 200:
                    return
            await asyncio.sleep(0.1)
        self.end()
        raise SystemExit(f"{self._name} does not start; run it by hand to see why.")

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """The process may run within it; `rest` holds it still before."""
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.rest()

    def rest(self) -> None:
        """Hold the process still, so that it costs another side nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def end(self) -> None:
        """Kill it; nothing of it is kept."""
        self.process.kill()
        self.process.wait()


def ours(model: str, threads: int, *more: str) -> Served:
    """`sparity-edge serve`.

    Args:
        model: a file, a packed folder or a name.
        threads: that compute.
        more: further options.
    """
    words = [sys.executable, "-m", "sparity_edge", "serve", model, "--threads", str(threads)]
    return Served([*words, *more])


def llama_server(program: Path, model: Path, threads: int, slots: int, positions: int) -> Served:
    """llama.cpp's server.

    Args:
        program: `llama-server`.
        model: a GGUF file.
        threads: that compute, prompts too.
        slots: answers decoded together.
        positions: of the context of each.
    """
    words = [str(program), "-m", str(model), "-t", str(threads), "-np", str(slots)]
    return Served([*words, "-c", str(slots * positions), "--host", HOST])


def token_ids(port: int, text: str) -> list[int]:
    """A text as our server encodes it."""
    body = {"content": text, "add_special": False}
    answer = asyncio.run(exchange(port, post("/tokenize", body)))
    tokens: list[int] = json.loads(answer.body())["tokens"]
    return tokens


class Prompts:
    """Token ids of a text, a window after another, so that no prompt begins like one before.

    Args:
        ids: of the text.
        length: of a prompt.
    """

    def __init__(self, ids: Sequence[int], length: int) -> None:
        self._ids, self._length, self._at = ids, length, 0

    def take(self, count: int) -> list[list[int]]:
        """The next prompts; from the beginning again, shifted, where the text is over."""
        found = []
        for _ in range(count):
            if self._at + self._length > len(self._ids):
                self._at = self._at % self._length + 7
            found.append(list(self._ids[self._at : self._at + self._length]))
            self._at += self._length
        return found
