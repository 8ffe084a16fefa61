"""What the server costs over the bare Generator: the same model and prompts, interleaved.

Each round one client streams an answer, then eight do so at once; before or after it, the Generator
of this process streams the same one and generates the same eight together. Neither guesses tokens.
The server is held still while the Generator works. Prompts are windows of a text, so that nothing
is found in a cache.

    python bench/server/overhead.py ../shared/data/wikitext2/wiki.test.raw
    python bench/server/overhead.py wiki.test.raw --model model.gguf --label 1.5B --rounds 5
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from server.client import Answer, exchange, post
from server.sides import Prompts, Served, ours, token_ids
from shared.as_cpu import labelled
from shared.common import PAUSE, models_so_far, parser, save, say, thread_count
from shared.models import DEFAULT_MODEL

from sparity_edge import Generator, SamplingParams
from sparity_edge.measure.machine import machine
from sparity_edge.measure.rounds import ratios, summary, table, with_spread

CLIENTS = 8
BARE, SERVED = "Generator", "server"
READ_CHARACTERS = 1_000_000  # of the text
Figures = dict[str, float]


def body(ids: Sequence[int], tokens: int) -> dict[str, Any]:
    """A request for the likeliest tokens, so many of them."""
    return {
        "prompt": list(ids), "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
        "stream": True,
    }  # fmt: skip


async def streamed(port: int, prompts: Sequence[Sequence[int]], tokens: int) -> list[Answer]:
    """The answers to some prompts that are asked at once.

    Raises:
        SystemExit: one of them is no answer of so many tokens.
    """
    sent = [post("/v1/completions", body(ids, tokens)) for ids in prompts]
    answers = await asyncio.gather(*(exchange(port, each) for each in sent))
    for each in answers:
        if each.status != 200 or len(each.token_times()) < tokens:
            raise SystemExit(f"A server gave no whole answer: {bytes(each.raw[-300:])!r}")
    return answers


def one(start: float, marks: Sequence[float]) -> Figures:
    """TTFT in seconds and tokens a second after it, of one answer."""
    return {"ttft": marks[0] - start, "decode": (len(marks) - 1) / (marks[-1] - marks[0])}


class Sides:
    """The Generator and the server, asked the same.

    Args:
        generator: of this process.
        server: of the same model.
        options: of the command line.
    """

    def __init__(self, generator: Generator, server: Served, options: Any) -> None:
        self._generator, self._server, self._tokens = generator, server, options.tokens
        text = options.text.read_text(encoding="utf-8")[:READ_CHARACTERS]
        self.prompts = Prompts(token_ids(server.port, text), options.prompt)
        self._params = SamplingParams(temperature=0, max_tokens=options.tokens, ignore_eos=True)

    def bare(self, prompts: Sequence[Sequence[int]]) -> Figures:
        """The first prompt alone, then the others together."""
        start = time.perf_counter()
        marks = [
            time.perf_counter() for _ in self._generator.stream(list(prompts[0]), self._params)
        ]
        before = time.perf_counter()
        self._generator.generate_batch([list(each) for each in prompts[1:]], self._params)
        seconds = time.perf_counter() - before
        return {**one(start, marks), "together": self._tokens * CLIENTS / seconds}

    def served(self, prompts: Sequence[Sequence[int]]) -> Figures:
        """The first prompt by one client, then the others by one each, at once."""
        with self._server.awake():
            (alone,) = asyncio.run(streamed(self._server.port, prompts[:1], self._tokens))
            time.sleep(PAUSE)
            answers = asyncio.run(streamed(self._server.port, prompts[1:], self._tokens))
        seconds = max(each.ended for each in answers) - min(each.started for each in answers)
        return {
            **one(alone.started, alone.token_times()),
            "together": self._tokens * CLIENTS / seconds,
        }


def measure(options: Any, threads: int) -> dict[str, Any]:
    """All rounds of one model."""
    server = ours(options.model, threads, "--no-speculation")
    with Generator.load(options.model, threads=threads, speculation=False) as generator:
        generator.compile()
        generator.loaded.model.machine.compile_batches(generator.loaded.progress)
        try:
            sides = Sides(generator, server, options)
            found = list(_rounds(sides, options.rounds))
        finally:
            server.end()
    return {
        "machine": machine(threads), "rounds": options.rounds, "clients": CLIENTS,
        "prompt_tokens": options.prompt, "tokens": options.tokens, **compared(found),
    }  # fmt: skip


def _rounds(sides: Sides, rounds: int) -> Iterator[dict[str, Figures]]:
    """What both sides took, the other one first in every other round; one more is thrown away."""
    cases = [(BARE, sides.bare), (SERVED, sides.served)]
    for number in range(rounds + 1):
        prompts, found = sides.prompts.take(1 + CLIENTS), {}
        for name, side in cases if number % 2 else cases[::-1]:
            found[name] = side(prompts)
            time.sleep(PAUSE)
        if number:
            say(f"round {number}/{rounds}")
            yield found


def compared(found: Sequence[Mapping[str, Figures]]) -> dict[str, Any]:
    """Summaries of both sides, and of their differences and ratios within a round."""
    values = {
        side: {what: [each[side][what] for each in found] for what in found[0][side]}
        for side in (BARE, SERVED)
    }
    bare, served = values[BARE], values[SERVED]
    late = [after - before for before, after in zip(bare["ttft"], served["ttft"])]
    return {
        "sides": {
            side: {what: summary(each) for what, each in whats.items()}
            for side, whats in values.items()
        },
        "ttft_more": summary(late),
        "decode_ratio": summary(ratios(served["decode"], bare["decode"])),
        "together_ratio": summary(ratios(served["together"], bare["together"])),
    }


def main() -> int:
    options_parser = parser(__doc__, "server_overhead")
    add = options_parser.add_argument
    add("text", type=Path, help="what prompts are windows of")
    add("--model", default=DEFAULT_MODEL, help="default: %(default)s")
    add("--label", help="of the row; default: the model")
    add("--prompt", type=int, default=256, help="tokens; default: %(default)s")
    add("--tokens", type=int, default=64, help="of an answer; default: %(default)s")
    options = options_parser.parse_args()
    models = models_so_far(options.out)
    label = labelled(options.label or Path(options.model).stem)
    models[label] = row = measure(options, thread_count(options.threads))
    save(options.out, {"models": models})
    cells = [with_spread(row[key], 3) for key in ("ttft_more", "decode_ratio", "together_ratio")]
    print(table(["model", "TTFT, s more", "decode", f"{CLIENTS} together"], [[label, *cells]]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
