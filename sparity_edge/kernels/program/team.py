"""Team: threads that run a recorded program together, without a threading layer.

Numba's portable layer costs 73 us a launch, some 15 ms for a token; here the threads enter compiled
code once a program, with barriers between operations (atomic counters, 0.1 us). Chunks of work are
taken from a counter, so a thread that the system delays holds up nobody, and fast and slow cores
share fairly. Between programs the threads sleep. The team knows nothing of what it runs.
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
from sparity_edge.kernels.kernel import cache_of_these_kernels, device, entry
from sparity_edge.kernels.simd.atomics import atomic_add, atomic_load, call0, call3, pause
from sparity_edge.kernels.simd.memory import load_i64
from sparity_edge.kernels.simd.prefetch import prefetch
from sparity_edge.system.threads import yield_address

# One operation of a program: int64 words, then its arguments. WEIGHTS is where the bytes stand that
# its chunks stream through, CHUNK_BYTES a chunk, and NEXT the first operation from here on that has
# such weights.
FUNCTION, CHUNKS, WAITS, WEIGHTS, CHUNK_BYTES, NEXT, FIRST_ARGUMENT = range(7)
RECORD_WORDS = 32
# The words of a program's header.
RECORDS, OPERATIONS, COUNTERS, SCRATCH, SCRATCH_STRIDE, ABORT, YIELD, THREADS = range(8)
HEADER_WORDS = 8
# Counters have a cache line each: of an operation one for what is done, and one for each region.
LINE = 64
# While it waits, a thread prefetches so many bytes of the weights that it will need next.
IDLE_BYTES = 1 << 17
# How often to look before letting another thread have the core (about 30 us).
PATIENCE = 1000
# Seconds between looks for Ctrl-C: Windows cannot interrupt a wait.
HEARING = 0.1


@device
def _record_of(header: int, operation: int) -> int:
    return load_i64(header + 8 * RECORDS) + 8 * RECORD_WORDS * operation


@device
def _counters_of(header: int, operation: int) -> int:
    stride = LINE * (1 + load_i64(header + 8 * THREADS))
    return load_i64(header + 8 * COUNTERS) + stride * operation


@device
def _wait(header: int, first: int, last: int) -> None:
    """Wait until every chunk of the operations first..last-1 is done."""
    for operation in range(first, last):
        chunks = load_i64(_record_of(header, operation) + 8 * CHUNKS)
        done = _counters_of(header, operation)
        looks = 0
        while atomic_load(done) < chunks:
            looks += 1
            if looks < PATIENCE:
                pause()
            else:
                looks = 0
                call0(load_i64(header + 8 * YIELD))


@device
def _prefetch_region(header: int, operation: int, thread: int) -> None:
    """Prefetch the beginning of what this thread will stream through in an operation."""
    record, threads = _record_of(header, operation), load_i64(header + 8 * THREADS)
    chunks, chunk_bytes = load_i64(record + 8 * CHUNKS), load_i64(record + 8 * CHUNK_BYTES)
    first, last = thread * chunks // threads, (thread + 1) * chunks // threads
    start = load_i64(record + 8 * WEIGHTS) + first * chunk_bytes
    for offset in range(0, min(IDLE_BYTES, (last - first) * chunk_bytes), 64):
        prefetch(start + offset)


@device
def _work_through(header: int, operation: int, thread: int, scratch: int) -> None:
    """Take chunks of one operation until none is left: of the own region first, then of others'.

    A region is contiguous, so that a thread streams through memory; what a thread leaves behind
    because the system delays it, the others take.
    """
    record, counters = _record_of(header, operation), _counters_of(header, operation)
    chunks, threads = load_i64(record + 8 * CHUNKS), load_i64(header + 8 * THREADS)
    done = 0
    for step in range(threads):
        region = thread + step
        if region >= threads:
            region -= threads
        first, last = region * chunks // threads, (region + 1) * chunks // threads
        counter = counters + LINE * (1 + region)
        while atomic_load(counter) < last - first:
            chunk = first + atomic_add(counter, 1)
            if chunk >= last:
                break
            if atomic_load(header + 8 * ABORT) == 0:
                function = load_i64(record + 8 * FUNCTION)
                call3(function, record + 8 * FIRST_ARGUMENT, chunk, scratch)
            done += 1
    if done > 0:
        atomic_add(counters, done)


@device
def _execute(header: int, thread: int) -> None:
    """Run the program, taking chunks along with whichever other threads are here."""
    operations = load_i64(header + 8 * OPERATIONS)
    scratch = load_i64(header + 8 * SCRATCH) + thread * load_i64(header + 8 * SCRATCH_STRIDE)
    first = 0  # operations before this one are done
    asked = -1  # the operation whose weights were prefetched last
    for operation in range(operations):
        record = _record_of(header, operation)
        if load_i64(record + 8 * WAITS) != 0:
            # Memory would idle at a barrier and while one thread does the small work.
            ahead = load_i64(record + 8 * NEXT)
            if asked < ahead < operations:
                _prefetch_region(header, ahead, thread)
                asked = ahead
            _wait(header, first, operation)
            first = operation
        _work_through(header, operation, thread, scratch)
    _wait(header, first, operations)


with cache_of_these_kernels():

    @entry
    def _join(inside: int, give_way: int) -> None:
        """Wait until every worker of a job has left; `inside` counts those that have not."""
        while atomic_load(inside) > 0:
            call0(give_way)

    @entry
    def _lead(header: int, inside: int, give_way: int) -> None:
        """What the leader thread does: its share as thread 0, then wait for the workers."""
        _execute(header, 0)
        _join(inside, give_way)

    @entry
    def _follow(header: int, thread: int, inside: int) -> None:
        """What a worker does: its share, then leave."""
        _execute(header, thread)
        atomic_add(inside, -1)


class Runnable(Protocol):
    """What the team needs of a program."""

    def start(self) -> npt.NDArray[np.int64]:
        """Set the counters back and give the header words, laid out as above."""


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
        for loop, words in ((_lead, 3), (_follow, 3), (_join, 2)):
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
                    _lead(job.header, job.inside, self._yield)
            except BaseException:
                header[ABORT] = 1
                self._recall(job, workers)
                raise

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
            _follow(job.header, thread, job.inside)
        # Memory of the program must not be kept alive until the next job.
        del message, job, others


def _lead_workers(job: _Job, others: list[SimpleQueue[Any]], give_way: int) -> None:
    """What the leader does: wake the other workers, work along, tell when all have left."""
    if job.taken:
        return
    job.taken = True
    for thread, inbox in enumerate(others, job.first_thread + 1):
        inbox.put((job, (), thread))
    _follow(job.header, job.first_thread, job.inside)
    _join(job.inside, give_way)
    job.done.set()


def _dismiss(inboxes: list[SimpleQueue[Any]]) -> None:
    for inbox in inboxes:
        inbox.put(None)
