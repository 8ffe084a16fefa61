"""Tasks answered with a text: GSM8K by exact match, HumanEval by the likelihood of the reference.

GSM8K is asked as in EleutherAI's lm-evaluation-harness: five solved problems in front, greedy, and
the number behind "####" has to be the right one. HumanEval is not run, since that would mean to run
what a model wrote: what counts is how many nats a token the reference solution costs behind its
prompt. Knows nothing of plans and prints nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.results import json_lines, losses, shares

from sparity_edge import Generator, SamplingParams
from sparity_edge.progress import Progress, silent
from sparity_edge.quality.scoring import encode_pair, score

SHOTS, MOST_TOKENS = 5, 256
FINAL = re.compile(r"#### (-?[0-9.,]+)")


@dataclass(frozen=True)
class Problem:
    """A prompt and the text that solves it."""

    prompt: str
    solution: str


class Gsm8k:
    """Problems of arithmetic in words, solved with a text that ends in the number."""

    name = "gsm8k"

    def read(self, data: Path) -> Iterator[Problem]:
        """Each problem behind the same solved ones, which are from the training split."""
        folder = data / "gsm8k"
        solved = [
            f"Question: {line['question']}\nAnswer: {line['answer']}\n\n"
            for _, line in zip(range(SHOTS), json_lines(folder / "train_first500.jsonl"))
        ]
        for line in json_lines(folder / "test.jsonl"):
            prompt = f"{''.join(solved)}Question: {line['question']}\nAnswer:"
            yield Problem(prompt, line["answer"])

    def answer(
        self, generator: Generator, asked: Sequence[Problem], progress: Progress = silent
    ) -> dict[str, Any]:
        """As `results.shares` makes it; the active weight fraction is that of written tokens."""
        params = SamplingParams(temperature=0, max_tokens=MOST_TOKENS, stop="Question:")
        correct, active, tokens = "", 0.0, 0
        for done, problem in enumerate(asked):
            progress(self.name, done, len(asked))
            reply = generator.generate(problem.prompt, params)
            correct += str(int(final(reply.text) == final(problem.solution)))
            active += reply.stats.active_weight_fraction * reply.stats.generated_tokens
            tokens += reply.stats.generated_tokens
        progress(self.name, len(asked), len(asked))
        return shares(correct, active / tokens)


class HumanEval:
    """Python functions, whose reference solutions are read behind their heads."""

    name = "humaneval"

    def read(self, data: Path) -> Iterator[Problem]:
        """The problems as they are published."""
        for line in json_lines(data / "humaneval" / "HumanEval.jsonl"):
            yield Problem(line["prompt"], line["canonical_solution"])

    def answer(
        self, generator: Generator, asked: Sequence[Problem], progress: Progress = silent
    ) -> dict[str, Any]:
        """As `results.losses` makes it, in nats a token of the reference solutions."""
        nats, active = [], 0.0
        for done, problem in enumerate(asked):
            progress(self.name, done, len(asked))
            context, ids = encode_pair(generator.tokenizer, problem.prompt, problem.solution)
            found = score(generator, context, [ids])[0]
            nats.append(-found.logprob / found.tokens)
            active += found.active_weight_fraction
        progress(self.name, len(asked), len(asked))
        return losses(nats, active / len(asked))


def final(text: str) -> str | None:
    """The number behind the first "####" of a solution, as the harness compares it."""
    found = FINAL.search(text)
    return found[1].replace(",", "").rstrip(".") if found else None
