"""The tasks of bench/quality.py: what is asked, what counts as right, and paired differences."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sparity_edge import Generator, SamplingParams
from sparity_edge.quality.scoring import encode_pair, score


@pytest.fixture(scope="module")
def generator(checkpoint: Callable[[str], Path]) -> Iterator[Generator]:
    with Generator.load(checkpoint("llama_untied"), dtype="f32", threads=2) as loaded:
        yield loaded


def write(path: Path, *lines: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_questions_are_read(bench: Any, tmp_path: Path) -> None:
    questions = bench("tasks.every").questions
    module = bench("tasks.choices")
    lines = [{"ctx": f"c{i}", "endings": ["a", "b"], "label": i % 2} for i in range(10)]
    write(tmp_path / "hellaswag/hellaswag_val.jsonl", *lines)
    write(tmp_path / "piqa/valid.jsonl", {"goal": "Go", "sol1": "left", "sol2": "right"})
    (tmp_path / "piqa/valid-labels.lst").write_text("1\n", encoding="utf-8")
    choices = [{"text": "x", "label": "3"}, {"text": "y", "label": "4"}]
    question = {"stem": "Why?", "choices": choices}
    write(tmp_path / "arc_easy/test.jsonl", {"question": question, "answerKey": "4"})
    assert questions("piqa", tmp_path, None) == [
        module.Question("Question: Go\nAnswer:", ("left", "right"), 1)
    ]
    assert questions("arc_easy", tmp_path, 5) == [
        module.Question("Question: Why?\nAnswer:", ("x", "y"), 1)
    ]
    some = questions("hellaswag", tmp_path, 5)
    assert [each.context for each in some] == ["c0", "c2", "c4", "c6", "c8"]


def test_answers_are_those_of_the_likelihoods(bench: Any, generator: Generator) -> None:
    choices = bench("tasks.choices")
    by_name = {task.name: task for task in choices.CHOICES}
    endings = ("a river", "one word after another", "no")
    likely = {}
    for ending in endings:
        context, ids = encode_pair(generator.tokenizer, "The model reads", f" {ending}")
        likely[ending] = score(generator, context, [ids])[0].logprob
    by_sum = max(endings, key=lambda ending: likely[ending])
    by_length = max(endings, key=lambda ending: likely[ending] / len(ending))
    assert by_sum != by_length, "the example shows nothing"
    for task, right in (("piqa", by_sum), ("hellaswag", by_length)):
        asked = [choices.Question("The model reads", endings, i) for i in range(3)]
        result = by_name[task].answer(generator, asked)
        assert result["correct"] == "".join(str(int(ending == right)) for ending in endings)
        assert result["accuracy"] == pytest.approx(1 / 3)
        assert result["stderr"] == pytest.approx((2 / 9 / 3) ** 0.5)
        assert result["active_weight_fraction"] == 1


def test_reference_solutions_cost_nats(bench: Any, generator: Generator, tmp_path: Path) -> None:
    lines = [{"prompt": "The river", "canonical_solution": text} for text in (" is wide.", " dry")]
    write(tmp_path / "humaneval/HumanEval.jsonl", *lines)
    asked = bench("tasks.every").questions("humaneval", tmp_path, None)
    result = bench("tasks.every").TASKS["humaneval"].answer(generator, asked)
    nats = []
    for line in lines:
        context, ids = encode_pair(generator.tokenizer, *line.values())
        nats.append(-score(generator, context, [ids])[0].logprob / len(ids))
    assert result["nats"] == pytest.approx(nats, abs=1e-4)
    assert result["nats_per_token"] == pytest.approx(sum(nats) / 2, abs=1e-4)
    assert bench("tasks.results").cell(result, None) == f"{sum(nats) / 2:.3f}"


class Solver:
    """In place of a Generator: writes a given text for each prompt in turn."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked = list(replies), []

    def generate(self, prompt: str, params: SamplingParams) -> Any:
        assert params.temperature == 0
        assert params.stop == ("Question:",)
        self.asked.append(prompt)
        stats = SimpleNamespace(active_weight_fraction=0.5, generated_tokens=3)
        return SimpleNamespace(text=self.replies.pop(0), stats=stats)


def test_gsm8k_counts_the_number_behind_the_marks(bench: Any, tmp_path: Path) -> None:
    line = {"question": "How many?", "answer": "It is so.\n#### 1200"}
    write(tmp_path / "gsm8k/train_first500.jsonl", *[{"question": "Q", "answer": "A #### 1"}] * 7)
    write(tmp_path / "gsm8k/test.jsonl", *[line] * 120)
    asked = bench("tasks.every").questions("gsm8k", tmp_path, None)
    assert len(asked) == 100, "a text takes long"
    assert asked[0].prompt.count("Question:") == 6
    assert asked[0].prompt.endswith("Question: How many?\nAnswer:")
    solver = Solver("So\n#### 1,200.", "#### 1201", "It is 1200", "#### 1200\n\n#### 7")
    result = bench("tasks.every").TASKS["gsm8k"].answer(solver, asked[:4])
    assert result["correct"] == "1001"
    assert result["active_weight_fraction"] == 0.5
    assert solver.asked == [each.prompt for each in asked[:4]]


def test_differences_are_paired(bench: Any) -> None:
    results = bench("tasks.results")
    same, other = {"correct": "1100"}, {"correct": "1110"}
    assert results.difference(same, same) == (0, 0)
    mean, error = results.difference({"correct": "1000"}, other)
    assert mean == -0.5
    assert error == pytest.approx((0.25 / 4) ** 0.5)
    dense, mine = results.losses([1.0, 2.0], 1.0), results.losses([1.5, 2.5], 0.5)
    assert results.cell(mine, dense) == "2.000 (+0.500 ± 0.000)"
    assert results.cell(results.shares("10", 1.0), results.shares("11", 1.0)) == (
        "50.0% (-50.0 ± 35.4)"
    )
    assert results.cell(None, dense) == ""
