"""Prompts on which guesses are worth something, or nothing: edited code, quoted prose, and chat.

Code is the model's own: it solves problems of HumanEval first, greedily, and is then asked to give
each solution back with one change. Prose is WikiText-2, chat the first turns of MT-Bench.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from tasks.results import json_lines

from sparity_edge import Generator, SamplingParams

KINDS = ("edit", "quote", "chat")
SOLVE = "Complete this function. Answer with the whole function and nothing else."
EDIT = "Return this function with one change"
CHANGES = (
    "its first argument is called `given`",
    "it raises ValueError at its beginning if its first argument is None",
    "a comment above its last line says what is returned",
)
QUOTE = "Summarise this text in one sentence, then quote its three most important sentences."
QUOTED_CHARACTERS = 6000  # about 1,500 tokens
SOLUTION_TOKENS = 256
_FENCED = re.compile(r"```(?:python)?\n(.*?)(?:```|\Z)", re.DOTALL)
Item = TypeVar("Item")


def prompts_of(kind: str, data: Path, count: int, generator: Generator) -> list[str]:
    """So many prompts of a kind, spread over all that there are.

    Args:
        kind: one of KINDS.
        data: the folder of evaluation text.
        count: how many.
        generator: the model that is asked, whose own solutions are edited.
    """
    if kind == "edit":
        problems = [line["prompt"] for line in json_lines(data / "humaneval" / "HumanEval.jsonl")]
        solved = [_solution(each, generator) for each in spread_evenly(problems, count)]
        return [
            f"{EDIT}: {CHANGES[index % len(CHANGES)]}.\n```python\n{code}\n```"
            for index, code in enumerate(solved)
        ]
    if kind == "quote":
        prose = (data / "wikitext2" / "wiki.test.raw").read_text(encoding="utf-8")
        parts = range(0, len(prose) - QUOTED_CHARACTERS, 5 * QUOTED_CHARACTERS)
        found = [f"{QUOTE}\n\n{prose[at : at + QUOTED_CHARACTERS]}" for at in parts]
    else:
        found = [line["turns"][0] for line in json_lines(data / "mt_bench" / "question.jsonl")]
    return spread_evenly(found, count)


def spread_evenly(items: Sequence[Item], count: int) -> list[Item]:
    """So many of the items, at equal distances."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _solution(problem: str, generator: Generator) -> str:
    """What the model makes of a problem: the code of its answer, or all of it."""
    params = SamplingParams(temperature=0, max_tokens=SOLUTION_TOKENS)
    text = generator.chat(f"{SOLVE}\n```python\n{problem}```", params).text
    found = _FENCED.search(text)
    return (found[1] if found else text).strip()
