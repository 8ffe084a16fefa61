"""Team: threads that run a recorded program together, without a threading layer.

Numba's portable layer costs 73 us a launch, some 15 ms for a token; here the threads enter compiled
code (`loops`) once a program. Between programs they sleep. The team knows nothing of what it runs.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from numba import int64

from sparity_edge.errors import SparityError
from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.program.loops import ABORT, YIELD, follow, join, lead
from sparity_edge.system.threads import yield_address

# Seconds between looks for Ctrl-C: Windows cannot interrupt a wait.
HEARING = 0.1


class Runnable(Protocol):
    """What the team needs of a program."""

    def start(self) -> npt.NDArray[np.int64]:
        """Set the counters back and give the header words, laid out as above."""

    def check(self) -> None:
        """Raise what checked kernels have found; called under SPARITY_EDGE_CHECKS alone."""


class _Job:
    """One run of one program by the workers; `done` is set when the last has left.

    The count of workers inside belongs to the job and not to the program: the leader of the workers
    may still be on its way out of one job when the next run of the same program begins.
    """

    def __init__(self, header: int, first_thread: int, workers: int) -> None:
        self.header = header
        self.first_thread = first_thread
        self.taken = False
        self.done = threading.Event()
        self._count = np.full(1, workers, dtype=np.int64)
        self.inside = int(self._count.ctypes.data)


class Team:
    """A fixed number of threads that run programs, one program at a time.

    The caller hands a job to one worker, their leader, which wakes the others: a single hand-over
    either happened or not, so Ctrl-C between two byte codes cannot leave half a team at work.

    Args:
        threads: how many threads work on a program, the caller included; at least 1.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._busy = threading.Lock()
        self._closed = False
        self._inboxes: list[SimpleQueue[Any]] = []
        self._yield = yield_address()
        self._process = os.getpid()
        self._dismiss = weakref.finalize(self, _dismiss, self._inboxes)

    @staticmethod
    def compile() -> None:
        """Compile the loops that every program needs."""
        for loop, words in ((lead, 3), (follow, 3), (join, 2)):
            with contextlib.suppress(OSError):  # compiled, but the disk may be too full to keep it
                loop.compile((int64,) * words)

    def run(self, program: Runnable, *, patient: bool = False) -> None:
        """Run a program to its end; other callers wait until it is over.

        Args:
            program: whose header words say what to do.
            patient: for programs that take long: the caller sleeps meanwhile, so that Ctrl-C is
                heard at once, at the price of one more wake-up.

        Raises:
            KeyboardInterrupt: a patient run was interrupted; its results are incomplete.
            SparityError: the team is closed, or has its threads in the process that this one was
                forked from; they would be waited for without end.
            BoundsError: a checked kernel was about to touch memory that is not its operation's.
        """
        if os.getpid() != self._process:
            raise SparityError(
                "This model was loaded before the process was forked, and its threads are not in "
                "the new one; load it there, or start processes with the method spawn."
            )
        with self._busy:
            if self._closed:
                raise SparityError("The model's threads were given back; load it again.")
            header = program.start()
            workers = self.threads if patient else self.threads - 1
            self._hire(workers)
            header[YIELD] = self._yield
            header[ABORT] = 0
            job = _Job(int(header.ctypes.data), self.threads - workers, workers)
            try:
                if workers:
                    self._hand_over(job, workers)
                if patient:
                    while not job.done.wait(HEARING):
                        pass
                else:
                    lead(job.header, job.inside, self._yield)
            except BaseException:
                header[ABORT] = 1
                self._recall(job, workers)
                raise
            if CHECKED:
                program.check()

    def close(self) -> None:
        """End the threads, once the program that runs is over; every later run is refused."""
        self._closed = True
        if os.getpid() == self._process:  # a forked process has no threads, and maybe a held lock
            with self._busy:
                self._dismiss()

    def _recall(self, job: _Job, workers: int) -> None:
        """Wait until no worker is in the job, whether or not its hand-over took place."""
        if not workers:
            return
        self._hand_over(job, workers)  # ignored when it had been taken
        while not job.done.is_set():
            # Leaving now would pull memory from under the workers.
            with contextlib.suppress(KeyboardInterrupt):
                job.done.wait(HEARING)

    def _hand_over(self, job: _Job, workers: int) -> None:
        self._inboxes[0].put((job, self._inboxes[1:workers], job.first_thread))

    def _hire(self, count: int) -> None:
        while len(self._inboxes) < count:
            inbox: SimpleQueue[Any] = SimpleQueue()
            # A daemon, so that a program that forgets to close the team can still exit.
            threading.Thread(target=_work, args=(inbox, self._yield), daemon=True).start()
            self._inboxes.append(inbox)


def _work(inbox: SimpleQueue[Any], give_way: int) -> None:
    """The life of a worker: wait for a job, do it, until None comes."""
    while (message := inbox.get()) is not None:
        job, others, thread = message
        if thread == job.first_thread:
            _lead_workers(job, others, give_way)
        else:
            follow(job.header, thread, job.inside)
        # Memory of the program must not be kept alive until the next job.
        del message, job, others


def _lead_workers(job: _Job, others: list[SimpleQueue[Any]], give_way: int) -> None:
    """What the leader does: wake the other workers, work along, tell when all have left."""
    if job.taken:
        return
    job.taken = True
    for thread, inbox in enumerate(others, job.first_thread + 1):
        inbox.put((job, (), thread))
    follow(job.header, job.first_thread, job.inside)
    join(job.inside, give_way)
    job.done.set()


def _dismiss(inboxes: list[SimpleQueue[Any]]) -> None:
    for inbox in inboxes:
        inbox.put(None)
