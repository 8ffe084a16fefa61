"""A server under load for a while: many clients, and those that behave badly among them.

64 clients at once ask for completions of ragged prompts, some of which begin alike; some hang up
before the answer or in its midst, some read slowly, some send what is no request. Told are: answers
by status, of which 5xx may be 503 with Retry-After alone; memory of the server after a third of the
time and at the end; and whether every finished answer is that which the same request gets alone,
when nobody else asks, from a server of its own that keeps nothing.

    python bench/server/load.py ../shared/data/wikitext2/wiki.test.raw --minutes 15
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from server.client import Answer, exchange, post, request
from server.sides import Served, ours, token_ids
from shared.as_cpu import labelled
from shared.common import parser, save, say, thread_count
from shared.models import DEFAULT_MODEL

from sparity_edge.measure.machine import machine

PATH = "/v1/completions"
CLIENTS, REQUESTS = 64, 200  # at once; different ones in all
READ_CHARACTERS = 300_000  # of the text
LENGTHS = (1, 8, 30, 100, 200, 400, 700)  # tokens of prompts, about
MALFORMED = (
    b"{", b"[1, 2]", b'{"prompt": [-1]}', b'{"prompt": "a", "max_tokens": "many"}', b"\xff\xfe",
    b'{"prompt": "a", "tools_of_mine": 1}', b'{"prompt": [' + b"[" * 5000, b"",
    b'{"prompt": "a", "temperature": -3}', b'{"prompt": ' + b"9" * 5000 + b"}",
)  # fmt: skip
SETTLE = 5.0  # seconds between two looks at the server's memory
MANNERS = {"whole": 6, "streamed": 6, "slow": 2, "gone": 2, "midway": 2, "malformed": 2}


def bodies(ids: list[int], seed: int) -> list[dict[str, Any]]:
    """Different requests; every third prompt begins like the one before it."""
    draw, found = random.Random(seed), []
    for number in range(REQUESTS):
        start, length = draw.randrange(len(ids) - 1000), draw.choice(LENGTHS) + draw.randrange(20)
        prompt = ids[start : start + length]
        if number % 3 == 2:
            prompt = found[-1]["prompt"][:300] + prompt[:50]
        found.append({
            "prompt": prompt, "max_tokens": draw.choice((1, 8, 40, 100)), "seed": number,
            "temperature": draw.choice((0, 0.8, 1.2)),
        })  # fmt: skip
    return found


class Load:
    """What the clients do and see.

    Args:
        port: of the server.
        requests: different bodies.
        seconds: how long.
    """

    def __init__(self, port: int, requests: list[dict[str, Any]], seconds: float) -> None:
        self._port, self._requests = port, requests
        self._end = time.monotonic() + seconds
        self.statuses: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.texts: dict[int, set[str]] = {}  # of finished answers, by request

    async def run(self) -> None:
        """All clients, until the time is over."""
        await asyncio.gather(*(self._client(number) for number in range(CLIENTS)))

    async def _client(self, number: int) -> None:
        draw = random.Random(1000 + number)
        while time.monotonic() < self._end:
            manner = draw.choices(list(MANNERS), list(MANNERS.values()))[0]
            try:
                await self._ask(manner, draw)
            except OSError as error:
                self.faults[f"connection: {type(error).__name__}"] += 1
                await asyncio.sleep(0.1)

    async def _ask(self, manner: str, draw: random.Random) -> None:
        if manner == "malformed":
            answer = await exchange(self._port, request("POST", PATH, draw.choice(MALFORMED)))
            self._note(manner, answer)
            return
        index = draw.randrange(len(self._requests))
        sent = post(PATH, {**self._requests[index], "stream": manner != "whole"})
        if manner == "gone":
            await exchange(self._port, sent, leave_after=draw.random())
            return
        leave = 1500 if manner == "midway" else None
        pause = 0.05 if manner == "slow" else 0.0
        answer = await exchange(self._port, sent, leave=leave, pause=pause)
        if manner == "midway":
            return
        self._note(manner, answer)
        if answer.status == 503:
            await asyncio.sleep(0.5)
        elif answer.status == 200:
            text = _text(manner, answer)
            if text is None:
                self.faults[f"{manner}: an answer without an end"] += 1
            else:
                self.texts.setdefault(index, set()).add(text)

    def _note(self, manner: str, answer: Answer) -> None:
        status = answer.status
        self.statuses[f"{status}"] += 1
        refused = status == 503 and "retry-after" in answer.headers
        expected = 400 <= status < 500 if manner == "malformed" else status == 200
        if not expected and not refused:
            self.faults[f"{manner}: {status}"] += 1


def _text(manner: str, answer: Answer) -> str | None:
    """Of an answer that came whole; None: it did not."""
    if manner == "whole":
        return str(json.loads(answer.body())["choices"][0]["text"])
    return answer.text() if answer.raw.rstrip().endswith((b"[DONE]", b"[DONE]\n\n\r\n0")) else None


async def alone(port: int, body: dict[str, Any]) -> str:
    """The text that a request gets when nobody else asks."""
    answer = await exchange(port, post(PATH, body))
    return str(json.loads(answer.body())["choices"][0]["text"])


async def watched(load: Load, server: Served, seconds: float) -> list[tuple[float, int]]:
    """Seconds since the beginning and bytes that the server holds, until the load is over."""
    import psutil

    process, start = psutil.Process(server.process.pid), time.monotonic()
    running, found = asyncio.ensure_future(load.run()), []
    while not running.done():
        await asyncio.wait([running], timeout=SETTLE)
        passed = time.monotonic() - start
        found.append((round(passed, 1), process.memory_info().rss))
        say(f"{passed:.0f} of {seconds:.0f} s: {found[-1][1] >> 20} MB, {dict(load.statuses)}")
    running.result()
    return found


def measure(options: Any, threads: int) -> dict[str, Any]:
    """The load, then every answered request alone."""
    seconds = 60 * options.minutes
    cache = ["--cache-mb", str(options.cache_mb)]
    server = ours(options.model, threads, *cache)
    try:
        text = options.text.read_text(encoding="utf-8")[:READ_CHARACTERS]
        load = Load(server.port, bodies(token_ids(server.port, text), options.seed), seconds)
        memory = asyncio.run(watched(load, server, seconds))
    finally:
        server.end()
    settled = min(300.0, seconds / 3)
    first = next(nbytes for passed, nbytes in memory if passed >= settled)
    server = ours(options.model, threads, "--cache-mb", "0", "--no-speculation")
    try:
        requests, texts = load._requests, load.texts
        expected = {index: asyncio.run(alone(server.port, requests[index])) for index in texts}
    finally:
        server.end()
    unlike = [index for index, each in texts.items() if each != {expected[index]}]
    return {
        "machine": machine(threads), "minutes": options.minutes, "clients": CLIENTS,
        "statuses": dict(load.statuses), "faults": dict(load.faults),
        "requests": len(texts), "unlike_alone": unlike, "settled_seconds": settled,
        "rss_settled": first, "rss_end": memory[-1][1], "rss_growth": memory[-1][1] / first - 1,
        "rss": [nbytes >> 20 for _, nbytes in memory],
    }  # fmt: skip


def main() -> int:
    options_parser = parser(__doc__, "load")
    add = options_parser.add_argument
    add("text", type=Path, help="what prompts are taken from")
    add("--model", default=DEFAULT_MODEL, help="default: %(default)s")
    add("--minutes", type=float, default=15.0, help="default: %(default)s")
    add("--cache-mb", type=int, default=256, help="of the server; default: %(default)s")
    add("--seed", type=int, default=1, help="of requests; default: %(default)s")
    options = options_parser.parse_args()
    report = measure(options, thread_count(options.threads))
    save(options.out, {"models": {labelled(Path(options.model).stem): report}})
    shown = {key: each for key, each in report.items() if key not in ("machine", "rss")}
    print(json.dumps(shown, indent=1))
    return bool(report["faults"] or report["unlike_alone"] or report["rss_growth"] > 0.03)


if __name__ == "__main__":
    raise SystemExit(main())
