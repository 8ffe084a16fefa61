"""What workers are: the interface of all ways to run tasks, and one worker in a process of its own.

A process keeps the worker that it has opened until another kind of task comes. Tasks of one
process run one after another, whoever sends them.
"""

from __future__ import annotations

import atexit
import contextlib
import pickle
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sparity_edge.progress import Progress

Task = TypeVar("Task", contravariant=True)
Result = TypeVar("Result", covariant=True)


class Open(Protocol[Task, Result]):
    """Opens a worker: given a number of threads, a function from task to result."""

    def __call__(self, threads: int, /) -> AbstractContextManager[Callable[[Task], Result]]:
        """A context in which the function can be called."""


Found = Callable[[int, Any], None]  # (number of a task, its result)


def unused(_: int, __: Any) -> None:
    """The listener to results that waits for all of them."""


class Workers(Protocol):
    """Where tasks of one kind are carried out."""

    def run(
        self,
        tasks: Sequence[Any],
        progress: Progress = ...,
        label: str = ...,
        found: Found = ...,
    ) -> list[Any]:
        """The results of tasks, in their order.

        Args:
            tasks: independent of each other.
            progress: told of finished tasks.
            label: what they are called in that.
            found: given each result at once, with the number of its task; in any order.

        Raises:
            SparityError: of a task; or it has ended several workers.
        """


@dataclass
class _Opened:
    """The worker of this process."""

    key: str
    work: Callable[[Any], Any]
    stack: ExitStack


_opened: _Opened | None = None
_turn = threading.Lock()


def carry_out(key: str, pickled: bytes, threads: int, task: Any) -> Any:
    """The result of a task, by the worker of this process, which is opened if need be.

    Args:
        key: of the kind of tasks.
        pickled: what opens a worker for them.
        threads: that it computes with.
        task: what is to be done.
    """
    global _opened
    with _turn:
        if _opened is None or _opened.key != key:
            _close()
            with ExitStack() as stack:
                work = stack.enter_context(pickle.loads(pickled)(threads))
                _opened = _Opened(key, work, stack.pop_all())
        return _opened.work(task)


@atexit.register
def _close() -> None:
    global _opened
    if _opened is not None:
        closing, _opened = _opened, None
        with contextlib.suppress(Exception):
            closing.stack.close()
