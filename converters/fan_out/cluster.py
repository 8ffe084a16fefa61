"""Tasks on a Dask cluster: workers on any machines that reach the files a worker opens.

The scheduler gives the tasks of a worker that is lost to others. All workers must have this version
of the project; figures are the same bit for bit where they have CPUs of one class.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from converters.fan_out.workers import Found, Open, carry_out, unused
from sparity_edge.errors import OptionError, ResourceError
from sparity_edge.kernels.simd.cpu import word_dot
from sparity_edge.progress import Progress, silent
from sparity_edge.system.version import own_version

CONNECT_SECONDS = 20
LARGE = "distributed.admin.large-graph-warning-threshold"  # what a worker opens may take megabytes


class Cluster:
    """Workers of a Dask scheduler.

    Args:
        open_worker: opens a worker in each of its processes.
        address: of the scheduler, as tcp://host:port.

    Raises:
        OptionError: dask.distributed is not installed, there is no scheduler, it has no workers, or
            one of them has another version of this project or another class of CPU.
    """

    def __init__(self, open_worker: Open[Any, Any], address: str) -> None:
        cloudpickle, dask, distributed = packages()
        self._distributed, self._settings = distributed, dask.config.set({LARGE: "4GiB"})
        self._client = _connected(distributed, address)
        self._key = uuid.uuid4().hex
        self._opener = self._client.submit(
            _as_it_is, cloudpickle.dumps(open_worker), key=f"open-{self._key}"
        )

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._opener.release()
        self._client.close()

    def run(
        self,
        tasks: Sequence[Any],
        progress: Progress = silent,
        label: str = "tasks",
        found: Found = unused,
    ) -> list[Any]:
        """The results of tasks, in their order."""
        futures = [
            self._client.submit(_carry_out, self._key, self._opener, task, pure=False)
            for task in tasks
        ]
        places = {future.key: index for index, future in enumerate(futures)}
        results: dict[int, Any] = {}
        try:
            progress(label, 0, len(tasks))
            for future in self._distributed.as_completed(futures):
                index = places[future.key]
                results[index] = future.result()
                found(index, results[index])
                progress(label, len(results), len(tasks))
        except self._distributed.KilledWorker:
            raise ResourceError(
                "Several workers of the cluster ended over one task, as a system short of memory "
                "does it; give each more memory."
            ) from None
        finally:
            self._client.cancel([each for each in futures if not each.done()])
        return [results[index] for index in range(len(tasks))]


def reach(address: str) -> None:
    """Refuse a cluster that could not be used, before there is anything for it to do.

    Raises:
        OptionError: as `Cluster` does.
    """
    _connected(packages()[2], address).close()


def _connected(distributed: Any, address: str) -> Any:
    """A client of a scheduler that has workers like this process."""
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        raise OptionError(
            f"No Dask scheduler answers at {address} ({type(error).__name__}); start one with "
            "dask scheduler, and workers with dask worker ADDRESS."
        ) from None
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        _demand_alike(client.run(about_here))
    except BaseException as error:
        client.close()
        if isinstance(error, TimeoutError):
            raise OptionError(
                f"The scheduler at {address} has no workers; start some with dask worker {address}."
            ) from None
        raise
    return client


def packages() -> tuple[Any, Any, Any]:
    """cloudpickle, dask and distributed.

    Raises:
        OptionError: they are not installed.
    """
    try:
        import cloudpickle
        import dask
        import distributed
    except ImportError:
        raise OptionError(
            "cluster needs dask.distributed, which is not installed; install it with "
            "pip install 'sparity-edge[cluster]'."
        ) from None
    return cloudpickle, dask, distributed


def about_here() -> tuple[str, str]:
    """What workers must have in common."""
    return own_version(), word_dot()


def _demand_alike(found: dict[str, tuple[str, str]]) -> None:
    mine = about_here()
    for address, its in found.items():
        if its[0] != mine[0]:
            raise OptionError(
                f"The worker at {address} has version {its[0]} of sparity-edge and this is "
                f"{mine[0]}; install the same one there."
            )
        if its[1] != mine[1]:
            raise OptionError(
                f"The worker at {address} has a CPU of class {its[1]} and this one is {mine[1]}, "
                "which round differently; use machines of one class."
            )


def _as_it_is(pickled: bytes) -> bytes:
    return pickled


def _carry_out(key: str, pickled: bytes, task: Any) -> Any:
    """A task in a worker of the cluster, with as many threads as that was started with."""
    from distributed import get_worker

    return carry_out(key, pickled, get_worker().state.nthreads, task)
