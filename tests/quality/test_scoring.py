"""Scores of continuations against whole passes, and the tasks made of them."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparity_edge import ContextError, Generator, OptionError
from sparity_edge.quality.scoring import encode_pair, score

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def generator(checkpoint: Callable[[str], Path]) -> Iterator[Generator]:
    with Generator.load(checkpoint("llama_untied"), dtype="f32", threads=2) as loaded:
        yield loaded


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("shared.tasks")


def whole(generator: Generator, context: list[int], ids: list[int]) -> tuple[float, bool]:
    """Log-likelihoods from one cold pass over everything."""
    every = [*context, *ids]
    logits = np.concatenate([np.array(part, dtype=np.float64) for part in generator.logits(every)])
    rows = logits[len(context) - 1 : -1]
    likely = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return sum(likely[range(len(ids)), ids]), bool((rows.argmax(axis=1) == ids).all())


@pytest.mark.parametrize("context", [[5], [1, 20, 30], [1, *range(20, 50)]])
def test_scores_equal_whole_passes(generator: Generator, context: list[int]) -> None:
    continuations = [[40], [41, 42, 43], [41, 42, 44], list(range(60, 90))]
    results = score(generator, context, continuations)
    for result, ids in zip(results, continuations):
        logprob, greedy = whole(generator, context, ids)
        assert result.logprob == pytest.approx(logprob, abs=1e-3)
        assert (result.greedy, result.tokens) == (greedy, len(ids))
        assert result.active_weight_fraction == 1


def test_the_most_likely_continuation_is_greedy(generator: Generator) -> None:
    context = [1, 30, 31]
    answer: list[int] = []
    for _ in range(4):
        logits = np.concatenate([np.array(part) for part in generator.logits(context + answer)])
        answer.append(int(logits[-1].argmax()))
    assert [each.greedy for each in score(generator, context, [answer, [*answer[:-1], 2]])] == [
        True,
        answer[-1] == 2,
    ]


def test_what_cannot_be_scored(generator: Generator) -> None:
    for context, continuations in (([], [[1]]), ([1], [[]]), ([1], [[10**6]])):
        with pytest.raises(OptionError):
            score(generator, context, continuations)
    with pytest.raises(ContextError):
        score(generator, [1] * generator.max_context, [[1, 2]])


def test_pairs_are_tokenised_together(generator: Generator) -> None:
    encode = generator.tokenizer.encode
    before, behind = encode_pair(generator.tokenizer, "The little model ", "reads")
    assert before == encode("The little model")
    assert [*before, *behind] == encode("The little model reads")
    with pytest.raises(OptionError, match="empty"):
        encode_pair(generator.tokenizer, "The", "")


def write(path: Path, *lines: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_questions_are_read(tasks: Any, tmp_path: Path) -> None:
    lines = [{"ctx": f"c{i}", "endings": ["a", "b"], "label": i % 2} for i in range(10)]
    write(tmp_path / "hellaswag/hellaswag_val.jsonl", *lines)
    write(tmp_path / "piqa/valid.jsonl", {"goal": "Go", "sol1": "left", "sol2": "right"})
    (tmp_path / "piqa/valid-labels.lst").write_text("1\n", encoding="utf-8")
    choices = [{"text": "x", "label": "3"}, {"text": "y", "label": "4"}]
    question = {"stem": "Why?", "choices": choices}
    write(tmp_path / "arc_easy/test.jsonl", {"question": question, "answerKey": "4"})
    assert tasks.questions("piqa", tmp_path, None) == [
        tasks.Question("Question: Go\nAnswer:", ("left", "right"), 1)
    ]
    assert tasks.questions("arc_easy", tmp_path, 5) == [
        tasks.Question("Question: Why?\nAnswer:", ("x", "y"), 1)
    ]
    some = tasks.questions("hellaswag", tmp_path, 5)
    assert [each.context for each in some] == ["c0", "c2", "c4", "c6", "c8"]


def test_answers_are_those_of_the_likelihoods(tasks: Any, generator: Generator) -> None:
    endings = ("a river", "one word after another", "no")
    likely = {}
    for ending in endings:
        context, ids = encode_pair(generator.tokenizer, "The model reads", f" {ending}")
        likely[ending] = whole(generator, context, ids)[0]
    by_sum = max(endings, key=lambda ending: likely[ending])
    by_length = max(endings, key=lambda ending: likely[ending] / len(ending))
    assert by_sum != by_length, "the example shows nothing"
    for task, right in (("piqa", by_sum), ("hellaswag", by_length)):
        asked = [tasks.Question("The model reads", endings, i) for i in range(3)]
        result = tasks.answer(generator, task, asked)
        assert result["correct"] == "".join(str(int(ending == right)) for ending in endings)
        assert result["accuracy"] == pytest.approx(1 / 3)
        assert result["stderr"] == pytest.approx((2 / 9 / 3) ** 0.5)
        assert result["active_weight_fraction"] == 1


def test_differences_are_paired(tasks: Any) -> None:
    assert tasks.difference("1100", "1100") == (0, 0)
    mean, error = tasks.difference("1000", "1110")
    assert mean == -0.5
    assert error == pytest.approx((0.25 / 4) ** 0.5)
