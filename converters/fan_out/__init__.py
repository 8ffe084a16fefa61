"""Fan-out: independent tasks in this process, in several, or on a Dask cluster.

A task is judged by a worker: a function from task to result that somebody opens once in each
process, with a model of its own. Results come in the order of the tasks and depend on nothing else,
so that they are the same for any number of workers. Knows no model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from converters.fan_out.here import Here
from converters.fan_out.workers import Open, Workers
from sparity_edge.errors import OptionError


@dataclass(frozen=True)
class Spread:
    """Where tasks run.

    Args:
        workers: processes on this machine; 1: this one alone.
        cluster: address of a Dask scheduler, whose workers are taken instead.
    """

    workers: int = 1
    cluster: str | None = None

    def __post_init__(self) -> None:
        whole = isinstance(self.workers, int) and not isinstance(self.workers, bool)
        if not whole or not 1 <= self.workers <= MOST_WORKERS:
            raise OptionError(
                f"workers={self.workers!r} is no whole number from 1 to {MOST_WORKERS}."
            )
        if self.cluster is not None and self.workers != 1:
            raise OptionError("Give either workers or a cluster: a cluster has workers of its own.")

    @property
    def here(self) -> bool:
        """Whether all of it runs in this process."""
        return self.workers == 1 and self.cluster is None

    def demand(self) -> None:
        """Refuse early what would fail once the work before it is done.

        Raises:
            OptionError: what the spread needs is not installed, or the cluster cannot be used.
        """
        if self.cluster is not None:
            from converters.fan_out import cluster

            cluster.reach(self.cluster)
        elif self.workers > 1:
            from converters.fan_out import processes

            processes.packages(self.workers)


MOST_WORKERS = 256
ALONE = Spread()


@contextlib.contextmanager
def fan_out(open_worker: Open[Any, Any], spread: Spread, threads: int) -> Iterator[Workers]:
    """Workers for tasks of one kind.

    Args:
        open_worker: opens a worker that computes with so many threads; it and all tasks and results
            can be pickled, unless all runs in this process.
        spread: where they run.
        threads: of this machine, divided among its processes. Workers of a cluster compute with as
            many as they were started with.

    Raises:
        OptionError: what the spread needs is not installed, or the cluster cannot be reached.
    """
    workers: Any
    if spread.cluster is not None:
        from converters.fan_out.cluster import Cluster

        workers = Cluster(open_worker, spread.cluster)
    elif spread.workers > 1:
        from converters.fan_out.processes import Processes

        workers = Processes(open_worker, spread.workers, max(1, threads // spread.workers))
    else:
        workers = Here(open_worker, threads)
    with workers:
        yield workers
