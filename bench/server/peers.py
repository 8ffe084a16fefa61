"""The server against llama.cpp's `llama-server`: the same GGUF file, the same threads, interleaved.

Some clients ask at once, each a few times in a row: a prompt of 256 tokens, 64 tokens streamed, the
likeliest ones, end of text ignored. Prompts are windows of a text, so that nothing is found in a
cache. One server is held still (SIGSTOP) while the other one is measured. Figures of a round are
all tokens over its seconds, and the 95th percentile of the time between two events with tokens of
an answer.

llama-server has to be built for this CPU, from the sources in the sdist of llama-cpp-python
(`pip download --no-deps --no-binary :all: llama-cpp-python`, then its folder vendor/llama.cpp) or
from a clone of llama.cpp; 10 minutes on two cores:

    cmake SOURCES -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \\
        -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_SERVER=ON -DLLAMA_BUILD_TESTS=OFF \\
        -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DBUILD_SHARED_LIBS=OFF
    make -j2 llama-server

    python bench/server/peers.py wiki.test.raw --llama build/bin/llama-server
    python bench/server/peers.py wiki.test.raw --llama llama-server --model 1.5B=model.gguf
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from server.client import Answer, exchange, gaps, post
from server.sides import Prompts, Served, llama_server, ours, token_ids
from shared.as_cpu import labelled
from shared.common import PAUSE, models_so_far, parser, save, say, thread_count
from shared.models import DEFAULT_MODEL, gguf_of
from shared.names import OURS, PEER

from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import percentile, ratios, summary, table, with_spread

READ_CHARACTERS = 1_000_000  # of the text
SPARE_POSITIONS = 64  # of a slot's context, beside prompt and answer
Figures = dict[str, float]


def body(ids: Sequence[int], tokens: int) -> dict[str, Any]:
    """A request for the likeliest tokens, so many of them; both sides take it."""
    return {
        "prompt": list(ids), "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


async def client(port: int, prompts: Sequence[Sequence[int]], tokens: int) -> list[Answer]:
    """One client's answers, one after another.

    Raises:
        SystemExit: one of them has another number of tokens.
    """
    answers = []
    for ids in prompts:
        answer = await exchange(port, post("/v1/completions", body(ids, tokens)))
        usage = [event["usage"] for _, event in answer.events() if event.get("usage")]
        counted = [usage[-1][key] for key in ("prompt_tokens", "completion_tokens")] if usage else 0
        if counted != [len(ids), tokens]:
            raise SystemExit(f"A server gave no whole answer: {bytes(answer.raw[-300:])!r}")
        answers.append(answer)
    return answers


async def clients(port: int, prompts: Sequence[Sequence[Sequence[int]]], tokens: int) -> Figures:
    """What all clients together got, and waited for."""
    start = time.perf_counter()
    found = await asyncio.gather(*(client(port, own, tokens) for own in prompts))
    seconds = time.perf_counter() - start
    times = [answer.token_times() for answers in found for answer in answers]
    started = [answer.started for answers in found for answer in answers]
    between = sorted(gap for each in times for gap in gaps(each))
    return {
        "tokens_s": tokens * len(times) / seconds,
        "gap_p50": percentile(between, 50),
        "gap_p95": percentile(between, 95),
        "ttft": sum(each[0] - since for each, since in zip(times, started)) / len(times),
    }


def measure(label: str, path: Path, options: Any, threads: int) -> dict[str, Any]:
    """One model on both sides, for every number of clients."""
    positions = options.prompt + options.tokens + SPARE_POSITIONS
    sides: dict[str, Served] = {}
    try:
        sides[OURS] = ours(str(path), threads, *options.option)
        text = options.text.read_text(encoding="utf-8")[:READ_CHARACTERS]
        prompts = Prompts(token_ids(sides[OURS].port, text), options.prompt)
        sides[OURS].rest()
        sides[PEER] = llama_server(options.llama, path, threads, options.slots, positions)
        sides[PEER].rest()
        rows = {
            str(count): compared(list(_rounds(label, sides, prompts, count, options)))
            for count in options.clients
        }
    finally:
        for each in sides.values():
            each.end()
    return {
        "file": path.name, "machine": machine(threads), "rounds": options.rounds,
        "peer": version(options.llama), "slots": options.slots, "options": options.option,
        "requests": options.requests, "prompt_tokens": options.prompt, "tokens": options.tokens,
        "clients": rows,
    }  # fmt: skip


def _rounds(
    label: str, sides: Mapping[str, Served], prompts: Prompts, count: int, options: Any
) -> Iterator[dict[str, Figures]]:
    """What both sides gave; the other one comes first in every other round, one is thrown away."""
    for number in range(options.rounds + 1):
        asked, found = [prompts.take(options.requests) for _ in range(count)], {}
        for name in list(sides) if number % 2 else list(sides)[::-1]:
            with sides[name].awake():
                found[name] = asyncio.run(clients(sides[name].port, asked, options.tokens))
            time.sleep(PAUSE)
        if number:
            say(f"{label}, {count} clients: round {number}/{options.rounds}")
            yield found


def compared(found: Sequence[Mapping[str, Figures]]) -> dict[str, Any]:
    """Both sides, and ours over the peer's within a round."""
    values = {
        side: {what: [each[side][what] for each in found] for what in found[0][side]}
        for side in (OURS, PEER)
    }
    quotients = {
        what: summary(ratios(values[OURS][what], values[PEER][what])) for what in values[OURS]
    }
    sides = {
        side: {what: summary(each) for what, each in whats.items()}
        for side, whats in values.items()
    }
    return {"sides": sides, "ratios": quotients}


def version(program: Path) -> str:
    """What llama-server says of itself."""
    run = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    lines = (run.stdout + run.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"


def show(models: Mapping[str, Any]) -> str:
    """A line for each model and number of clients."""
    lines = [
        [
            model, count,
            *(f"{row['sides'][side]['tokens_s']['median']:.1f}" for side in (OURS, PEER)),
            with_spread(row["ratios"]["tokens_s"]),
            *(f"{1e3 * row['sides'][side]['gap_p95']['median']:.1f}" for side in (OURS, PEER)),
            with_spread(row["ratios"]["gap_p95"]), with_spread(row["ratios"]["ttft"]),
        ]
        for model, report in models.items()
        for count, row in report["clients"].items()
    ]  # fmt: skip
    head = ["model", "clients", "tok/s", "theirs", "ratio", "p95, ms", "theirs", "ratio", "TTFT"]
    return table(head, lines)


def build_parser() -> Any:
    """The options."""
    result = parser(__doc__, "serving")
    add = result.add_argument
    add("text", type=Path, help="what prompts are windows of")
    add("--llama", type=Path, required=True, metavar="FILE", help="llama-server, as built above")
    add("--model", action="append", default=[], metavar="[NAME=]MODEL", help="a file or an alias")
    add("--clients", type=int, nargs="+", default=[1, 4, 8], help="default: 1 4 8")
    add("--requests", type=int, default=2, help="of each client; default: %(default)s")
    add("--prompt", type=int, default=256, help="tokens; default: %(default)s")
    add("--tokens", type=int, default=64, help="of an answer; default: %(default)s")
    add("--slots", type=int, default=4, help="of llama-server; default: %(default)s")
    add(
        "--option",
        action="append",
        default=[],
        help="of our server, such as --option=--no-speculation",
    )
    return result


def main() -> int:
    options = build_parser().parse_args()
    options.rounds = 2 if options.quick else options.rounds
    models = models_so_far(options.out)
    for each in options.model or [DEFAULT_MODEL]:
        name, _, model = each.rpartition("=")
        path = gguf_of(model)
        label = labelled(name or path.stem)
        models[label] = measure(label, path, options, thread_count(options.threads))
        save(options.out, {"models": models})
    print(show(models))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
