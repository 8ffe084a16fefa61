"""Tasks named as in llama-bench, and the cases that configurations and tasks multiply to."""

from __future__ import annotations

import pytest

from sparity_edge.errors import OptionError
from sparity_edge.measure.cases import Case, Configuration, Task, cases_of, settings_of, tasks_of
from sparity_edge.plans.setting import DENSE, Setting


def test_tasks_are_named_as_in_llama_bench() -> None:
    tasks = tasks_of([512, 0], [128, 0], [(64, 32)], [0, 2048], [1, 4])
    assert [task.name for task in tasks] == [
        "pp512", "tg128", "4 x tg128", "pp64+tg32",
        "pp512 @ d2048", "tg128 @ d2048", "4 x tg128 @ d2048", "pp64+tg32 @ d2048",
    ]  # fmt: skip
    assert [task.tokens for task in tasks[:4]] == [512, 128, 512, 96]
    assert tasks_of([0], [5], [], [0], [1]) == [Task(0, 5)]
    with pytest.raises(OptionError, match="Nothing is left"):
        tasks_of([0], [0], [], [0], [1])


def test_configurations_multiply_and_dense_is_one() -> None:
    settings = settings_of(["chess", "teal"], [0.0, 0.3], None)
    assert settings == [DENSE, Setting("chess", 0.3), Setting("teal", 0.3)]
    assert settings_of([None], None, None) == [DENSE]
    assert settings_of([None], None, [0.5]) == [Setting(None, None, 0.5)]
    cases = list(cases_of(["int8", "int4"], [1, 2], settings, [Task(8, 0), Task(0, 4)]))
    assert len(cases) == len(set(cases)) == 2 * 2 * 3 * 2
    assert cases[1] == Case(Configuration("int8", 1, DENSE), Task(0, 4))
