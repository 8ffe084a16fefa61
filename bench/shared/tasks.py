"""Multiple-choice tasks, answered by the likelihood of the endings.

Prompts and normalisation are those of EleutherAI's lm-evaluation-harness: hellaswag takes the
ending with the greatest log-likelihood a character, piqa and arc_easy the one with the greatest
sum. Knows nothing of plans and prints nothing; the questions are read from a folder outside the
project.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
class Task:
    """Where the questions are, and whether an ending's length counts."""

    read: Callable[[Path], Iterator[Question]]
    by_length: bool


def hellaswag(data: Path) -> Iterator[Question]:
    for line in _lines(data / "hellaswag" / "hellaswag_val.jsonl"):
        yield Question(line["ctx"], tuple(line["endings"]), int(line["label"]))


def piqa(data: Path) -> Iterator[Question]:
    folder = data / "piqa"
    answers = (folder / "valid-labels.lst").read_text(encoding="utf-8").split()
    for line, answer in zip(_lines(folder / "valid.jsonl"), answers, strict=True):
        yield Question(_asked(line["goal"]), (line["sol1"], line["sol2"]), int(answer))


def arc_easy(data: Path) -> Iterator[Question]:
    for line in _lines(data / "arc_easy" / "test.jsonl"):
        choices = line["question"]["choices"]
        labels = [choice["label"] for choice in choices]
        endings = tuple(choice["text"] for choice in choices)
        yield Question(_asked(line["question"]["stem"]), endings, labels.index(line["answerKey"]))


TASKS = {
    "hellaswag": Task(hellaswag, by_length=True),
    "piqa": Task(piqa, by_length=False),
    "arc_easy": Task(arc_easy, by_length=False),
}


def _asked(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def questions(task: str, data: Path, limit: int | None) -> list[Question]:
    """The questions of a task, or `limit` of them spread evenly: files are sorted by subject."""
    every = list(TASKS[task].read(data))
    if limit is None or limit >= len(every):
        return every
    return [every[i * len(every) // limit] for i in range(limit)]


def answer(
    generator: Generator, task: str, asked: Sequence[Question], progress: Progress = silent
) -> dict[str, Any]:
    """Answer questions.

    Args:
        generator: loaded with `sparse_prefill=True` if reading is to be sparse.
        task: decides whether an ending's length counts.
        asked: at least one question.
        progress: told of questions.

    Returns:
        Ready for JSON: accuracy, its binomial standard error, the mean active weight fraction of
        the endings' tokens, and "correct", a 1 or 0 for each question, for paired comparisons.
    """
    correct, active, tokens = "", 0.0, 0
    for done, question in enumerate(asked):
        progress(task, done, len(asked))
        pairs = [encode_pair(generator.tokenizer, question.context, f" {ending}")
                 for ending in question.endings]  # fmt: skip
        scores = score(generator, pairs[0][0], [ending for _, ending in pairs])
        likely = [each.logprob for each in scores]
        if TASKS[task].by_length:
            likely = [value / len(text) for value, text in zip(likely, question.endings)]
        correct += str(int(likely.index(max(likely)) == question.answer))
        active += sum(each.active_weight_fraction * each.tokens for each in scores)
        tokens += sum(each.tokens for each in scores)
    progress(task, len(asked), len(asked))
    accuracy = correct.count("1") / len(correct)
    return {
        "accuracy": accuracy,
        "stderr": math.sqrt(accuracy * (1 - accuracy) / len(correct)),
        "active_weight_fraction": active / tokens,
        "correct": correct,
    }


def difference(correct: str, dense: str) -> tuple[float, float]:
    """Accuracy minus the dense model's on the same questions, and its standard error."""
    changes = [int(mine) - int(its) for mine, its in zip(correct, dense, strict=True)]
    mean = sum(changes) / len(changes)
    variance = sum((change - mean) ** 2 for change in changes) / len(changes)
    return mean, math.sqrt(variance / len(changes))
