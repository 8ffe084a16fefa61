"""Tasks in several processes of this machine, by joblib's loky.

A process that is killed breaks loky's pool: what has finished stays, a new pool takes the rest.
"""

from __future__ import annotations

import signal
import uuid
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from converters.fan_out.workers import Found, Open, carry_out, unused
from sparity_edge.errors import OptionError, ResourceError
from sparity_edge.progress import Progress, silent

ATTEMPTS = 3  # pools in a row that may break before anything has finished in them


class Processes:
    """Workers in processes of this machine.

    Args:
        open_worker: opens a worker in each of them.
        count: of processes.
        threads: that each of them computes with.

    Raises:
        OptionError: joblib is not installed.
    """

    def __init__(self, open_worker: Open[Any, Any], count: int, threads: int) -> None:
        cloudpickle, loky = packages(count)
        self._loky, self._pool = loky, None
        self._kind = (uuid.uuid4().hex, cloudpickle.dumps(open_worker))
        self._count, self._threads = count, threads

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(
        self,
        tasks: Sequence[Any],
        progress: Progress = silent,
        label: str = "tasks",
        found: Found = unused,
    ) -> list[Any]:
        """The results of tasks, in their order."""
        results: dict[int, Any] = {}
        broken = 0
        while len(results) < len(tasks):
            before = len(results)
            try:
                self._collect(tasks, results, progress, label, found)
            except BrokenProcessPool:
                self._stop()
                broken = broken + 1 if len(results) == before else 1
                if broken >= ATTEMPTS:
                    raise ResourceError(
                        f"{broken} times in a row a worker process was ended from outside before "
                        "it had finished anything, as a system short of memory does it; use fewer "
                        "workers."
                    ) from None
            except BaseException:
                self._stop()
                raise
        return [results[index] for index in range(len(tasks))]

    def _collect(
        self,
        tasks: Sequence[Any],
        results: dict[int, Any],
        progress: Progress,
        label: str,
        found: Found,
    ) -> None:
        """Carry out the tasks that have no result yet."""
        if self._pool is None:
            self._pool = self._loky.ProcessPoolExecutor(self._count, initializer=_begin)
        pool: Any = self._pool
        waiting: dict[Future[Any], int] = {
            pool.submit(carry_out, *self._kind, self._threads, task): index
            for index, task in enumerate(tasks)
            if index not in results
        }
        fault: BaseException | None = None
        while waiting:
            progress(label, len(results), len(tasks))
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                index, error = waiting.pop(future), future.exception()
                if error is None:
                    results[index] = future.result()
                    found(index, results[index])
                elif not isinstance(error, BrokenProcessPool):
                    raise error
                else:
                    fault = error
        progress(label, len(results), len(tasks))
        if fault is not None:
            raise fault

    def _stop(self) -> None:
        if self._pool is not None:
            pool: Any = self._pool
            self._pool = None
            pool.shutdown(wait=True, kill_workers=True)


def packages(count: int) -> tuple[Any, Any]:
    """cloudpickle and loky.

    Args:
        count: of processes that are wanted.

    Raises:
        OptionError: they are not installed.
    """
    try:
        import cloudpickle
        from joblib.externals import loky
    except ImportError:
        raise OptionError(
            f"workers={count} needs joblib, which is not installed; install it with "
            "pip install 'sparity-edge[parallel]', or use one worker."
        ) from None
    return cloudpickle, loky


def _begin() -> None:
    """Ctrl-C is for the process that was asked; it ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
