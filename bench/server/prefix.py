"""Prompts that begin alike: time to the first token, of the first, the second, and after a restart.

A client asks for a prompt, for the same one again, and for its beginning with another end; then the
server is ended and started anew over the same --cache-dir, and each is asked for once more. Every
answer must be that of the first time. Prompts are windows of a text.

    python bench/server/prefix.py ../shared/data/wikitext2/wiki.test.raw
    python bench/server/prefix.py wiki.test.raw --model model.gguf --label 1.5B --rounds 3
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from server.client import Answer, exchange, post
from server.sides import Prompts, Served, ours, token_ids
from shared.common import models_so_far, parser, save, say, thread_count
from shared.models import DEFAULT_MODEL

from sparity_edge.measure.machine import machine

END = 100  # tokens of another end
TOKENS = 4  # of an answer
WRITTEN = 2.0  # seconds without another file after which all are written
READ_CHARACTERS = 1_000_000  # of the text
KINDS = ("first", "again", "other end", "again after a restart", "other end after a restart")


def asked(port: int, ids: Sequence[int]) -> Answer:
    """A prompt's answer, streamed.

    Raises:
        SystemExit: there is none.
    """
    body = {
        "prompt": list(ids), "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True,
        "stream": True,
    }  # fmt: skip
    answer = asyncio.run(exchange(port, post("/v1/completions", body)))
    if answer.status != 200 or not answer.token_times():
        raise SystemExit(f"The server gave no answer: {bytes(answer.raw[-300:])!r}")
    return answer


def first_token(answer: Answer) -> float:
    """Seconds to the first token."""
    return answer.token_times()[0] - answer.started


def wait_until_written(folder: Path) -> None:
    """Return when no file has come for a while."""
    count, since = -1, time.monotonic()
    while time.monotonic() - since < WRITTEN:
        now = sum(1 for _ in folder.rglob("*.prefix"))
        if now != count:
            count, since = now, time.monotonic()
        time.sleep(0.1)


def measure(options: Any, threads: int) -> dict[str, Any]:
    """All rounds of one model, one restart between their halves."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        more = ("--cache-dir", folder)
        server = ours(options.model, threads, *more)
        try:
            prompts, texts = _before(server, options, found)
            wait_until_written(Path(folder))
        finally:
            server.end()
        server = ours(options.model, threads, *more)
        try:
            asked(server.port, prompts[-1])  # what is done once for a process
            _after(server, prompts[:-1], texts, found)
        finally:
            server.end()
    medians = {kind: statistics.median(times) for kind, times in found.items()}
    return {
        "machine": machine(threads), "rounds": options.rounds, "prompt_tokens": options.prompt,
        "other_end_tokens": END, "seconds": found, "median_seconds": medians,
        "of_the_first": {kind: medians[kind] / medians["first"] for kind in KINDS[1:]},
    }  # fmt: skip


Rounds = list[list[int]]


def _before(
    server: Served, options: Any, found: dict[str, list[float]]
) -> tuple[Rounds, list[tuple[str, str]]]:
    """Prompts, one more than rounds, and the texts of both of each but the last."""
    text = options.text.read_text(encoding="utf-8")[:READ_CHARACTERS]
    windows = Prompts(token_ids(server.port, text), options.prompt)
    asked(server.port, windows.take(1)[0])  # what is done once for a process
    prompts, texts = windows.take(options.rounds + 1), []
    for ids in prompts[:-1]:
        answers = [asked(server.port, each) for each in (ids, ids, _other_end(ids))]
        for kind, answer in zip(KINDS, answers, strict=False):
            found[kind].append(first_token(answer))
        _demand_same(answers[0], answers[1].text())
        texts.append((answers[0].text(), answers[2].text()))
        say(f"TTFT in ms: {', '.join(f'{1e3 * first_token(each):.0f}' for each in answers)}")
    return prompts, texts


def _after(
    server: Served,
    prompts: Rounds,
    texts: Sequence[tuple[str, str]],
    found: dict[str, list[float]],
) -> None:
    for ids, both in zip(prompts, texts, strict=True):
        for kind, each, text in zip(KINDS[3:], (ids, _other_end(ids)), both, strict=True):
            answer = asked(server.port, each)
            found[kind].append(first_token(answer))
            _demand_same(answer, text)
            say(f"{kind}: TTFT {1e3 * first_token(answer):.0f} ms")


def _other_end(ids: Sequence[int]) -> list[int]:
    """A prompt of as many tokens that begins like another one."""
    return [*ids[:-END], *reversed(ids[-END:])]


def _demand_same(answer: Answer, text: str) -> None:
    if answer.text() != text:
        raise SystemExit(f"The answer depends on what was kept: {answer.text()!r}, {text!r}.")


def main() -> None:
    """Measure and save."""
    arguments = parser(__doc__, "prefix")
    arguments.add_argument("text", type=Path, help="what prompts are windows of")
    arguments.add_argument("--model", default=DEFAULT_MODEL, help="default: %(default)s")
    arguments.add_argument("--label", help="what its rows stand under (default: --model)")
    arguments.add_argument("--prompt", type=int, default=2000, help="tokens of a prompt")
    options = arguments.parse_args()
    if options.quick:
        options.rounds = 2
    threads = thread_count(options.threads)
    report = {"models": models_so_far(options.out)}
    report["models"][options.label or options.model] = measure(options, threads)
    save(options.out, report)
    for name, each in report["models"].items():
        shares = ", ".join(f"{kind} {share:.3f}" for kind, share in each["of_the_first"].items())
        say(f"{name}: first {1e3 * each['median_seconds']['first']:.0f} ms; of it {shares}")


if __name__ == "__main__":
    main()
