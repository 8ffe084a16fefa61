"""Multiple-choice tasks, answered by the likelihood of the endings.

Prompts and normalisation are those of EleutherAI's lm-evaluation-harness: hellaswag takes the
ending with the greatest log-likelihood a character, piqa and arc_easy the one with the greatest
sum. Knows nothing of plans and prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.results import json_lines, shares

from sparity_edge import Generator
from sparity_edge.progress import Progress, silent
from sparity_edge.quality.scoring import encode_pair, score


@dataclass(frozen=True)
class Question:
    """A context, its possible endings, and which of them is right."""

    context: str
    endings: tuple[str, ...]
    answer: int


@dataclass(frozen=True)
class Choices:
    """A task: where its questions are, and whether an ending's length counts."""

    name: str
    read: Callable[[Path], Iterator[Question]]
    by_length: bool

    def answer(
        self, generator: Generator, asked: Sequence[Question], progress: Progress = silent
    ) -> dict[str, Any]:
        """Answer questions.

        Args:
            generator: loaded with `sparse_prefill=True` if reading is to be sparse.
            asked: at least one question.
            progress: told of questions.

        Returns:
            As `results.shares` makes it; the active weight fraction is that of the endings' tokens.
        """
        correct, active, tokens = "", 0.0, 0
        for done, question in enumerate(asked):
            progress(self.name, done, len(asked))
            pairs = [encode_pair(generator.tokenizer, question.context, f" {ending}")
                     for ending in question.endings]  # fmt: skip
            scores = score(generator, pairs[0][0], [ending for _, ending in pairs])
            likely = [each.logprob for each in scores]
            if self.by_length:
                likely = [value / len(text) for value, text in zip(likely, question.endings)]
            correct += str(int(likely.index(max(likely)) == question.answer))
            active += sum(each.active_weight_fraction * each.tokens for each in scores)
            tokens += sum(each.tokens for each in scores)
        progress(self.name, len(asked), len(asked))
        return shares(correct, active / tokens)


def hellaswag(data: Path) -> Iterator[Question]:
    for line in json_lines(data / "hellaswag" / "hellaswag_val.jsonl"):
        yield Question(line["ctx"], tuple(line["endings"]), int(line["label"]))


def piqa(data: Path) -> Iterator[Question]:
    folder = data / "piqa"
    answers = (folder / "valid-labels.lst").read_text(encoding="utf-8").split()
    for line, answer in zip(json_lines(folder / "valid.jsonl"), answers, strict=True):
        yield Question(_asked(line["goal"]), (line["sol1"], line["sol2"]), int(answer))


def arc_easy(data: Path) -> Iterator[Question]:
    for line in json_lines(data / "arc_easy" / "test.jsonl"):
        choices = line["question"]["choices"]
        labels = [choice["label"] for choice in choices]
        endings = tuple(choice["text"] for choice in choices)
        yield Question(_asked(line["question"]["stem"]), endings, labels.index(line["answerKey"]))


CHOICES = (
    Choices("hellaswag", hellaswag, by_length=True),
    Choices("piqa", piqa, by_length=False),
    Choices("arc_easy", arc_easy, by_length=False),
)


def _asked(question: str) -> str:
    return f"Question: {question}\nAnswer:"
