"""llama-server as a side of a measurement: one process a way of guessing, asked one prompt a time.

Prompts go in as token ids, so both programs read the same; times are the server's own, of the
tokens after the first. Knows nothing of this project's models.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

START_SECONDS, ANSWER_SECONDS = 120, 600


class LlamaServer:
    """A server that runs for as long as the context lasts.

    Args:
        program: llama-server.
        model: a GGUF file.
        threads: how many compute.
        context: positions of the KV cache.
        options: how it guesses.
    """

    def __init__(
        self, program: Path, model: Path, threads: int, context: int, options: Sequence[str]
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        command = [
            str(program), "--model", str(model), "--host", "127.0.0.1", "--port", str(port),
            "--threads", str(threads), "--threads-batch", str(threads), "--ctx-size", str(context),
            "--parallel", "1", "--log-disable", *options,
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> LlamaServer:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self._ask("/health")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
            else:
                return self
        self._end()
        raise SystemExit(f"{self._process.args!r} does not start; run it by hand to see why.")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def answer(self, ids: Sequence[int], tokens: int) -> dict[str, float]:
        """One greedy answer: its tokens after the first, their seconds, and what was guessed.

        Args:
            ids: the prompt; what of it is in the KV cache is not read again.
            tokens: at most so many.
        """
        body = {"prompt": list(ids), "n_predict": tokens, "temperature": 0, "cache_prompt": True}
        timings = self._ask("/completion", body)["timings"]
        return {
            "tokens": timings["predicted_n"] - 1,
            "seconds": timings["predicted_ms"] / 1000,
            "drafted": timings.get("draft_n", 0),
            "accepted": timings.get("draft_n_accepted", 0),
        }

    def _ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, headers)
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return json.load(answer)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
