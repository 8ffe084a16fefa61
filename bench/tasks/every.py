"""Every task by its name, and the questions of one, read from a folder outside the project.

Knows nothing of how a task is answered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.choices import CHOICES
from tasks.solutions import Gsm8k, HumanEval

TASKS: dict[str, Any] = {task.name: task for task in (*CHOICES, Gsm8k(), HumanEval())}
MOST = {Gsm8k.name: 100}
DEFAULT = tuple(task.name for task in CHOICES)


def questions(task: str, data: Path, limit: int | None) -> list[Any]:
    """The questions of a task, or `limit` of them spread evenly: files are sorted by subject.

    A text takes far longer than a choice, so GSM8K is never asked for more than 100.
    """
    every = list(TASKS[task].read(data))
    count = min(each for each in (limit, MOST.get(task), len(every)) if each is not None)
    return [every[i * len(every) // count] for i in range(count)]
