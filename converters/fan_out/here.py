"""Tasks in this process, one after another: the default, and what all others must equal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from converters.fan_out.workers import Found, Open, unused
from sparity_edge.progress import Progress, silent


class Here:
    """One worker in this process, opened when the first task comes.

    Args:
        open_worker: opens it.
        threads: that it computes with.
    """

    def __init__(self, open_worker: Open[Any, Any], threads: int) -> None:
        self._open, self._threads = open_worker, threads
        self._stack = ExitStack()
        self._work: Callable[[Any], Any] | None = None

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        self._work = None
        self._stack.close()

    def run(
        self,
        tasks: Sequence[Any],
        progress: Progress = silent,
        label: str = "tasks",
        found: Found = unused,
    ) -> list[Any]:
        """The results of tasks, in their order."""
        if self._work is None and tasks:
            self._work = self._stack.enter_context(self._open(self._threads))
        results = []
        for done, task in enumerate(tasks):
            assert self._work is not None
            progress(label, done, len(tasks))
            results.append(self._work(task))
            found(done, results[-1])
        progress(label, len(tasks), len(tasks))
        return results
