"""Loops: the compiled code in which the threads of a team run a recorded program.

Threads enter it once a program, with barriers between operations (atomic counters, 0.1 us). Chunks
of work are taken from a counter, so a thread that the system delays holds up nobody, and fast and
slow cores share fairly. Here is also how a program is laid out; what makes one is the recorder.
"""

from __future__ import annotations

from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.kernel import cache_of_these_kernels, device, entry, inlined
from sparity_edge.kernels.simd.atomics import atomic_add, atomic_load, call0, call3, pause
from sparity_edge.kernels.simd.bounds import allow, begin_chunk, end_chunk, store_word
from sparity_edge.kernels.simd.bounds import load_word as load_i64  # words of the team's own
from sparity_edge.kernels.simd.memory import prefetch

# One operation of a program: int64 words, then its arguments. WEIGHTS is where the bytes stand that
# its chunks stream through, CHUNK_BYTES a chunk, and NEXT the first operation from here on that has
# such weights.
FUNCTION, CHUNKS, WAITS, WEIGHTS, CHUNK_BYTES, NEXT, FIRST_ARGUMENT = range(7)
RECORD_WORDS = 32
BLOCK_BYTES = 8 * (RECORD_WORDS - FIRST_ARGUMENT)
# The words of a program's header.
RECORDS, OPERATIONS, COUNTERS, SCRATCH, SCRATCH_STRIDE, ABORT, YIELD, THREADS = range(8)
# Where kernels are checked (`kernels.checks`): the tables of operations, and the checks' state.
TABLES, TABLE_STRIDE, STATE = range(8, 11)
HEADER_WORDS = 11
# Counters have a cache line each: of an operation one for what is done, and one for each region.
LINE = 64
# While it waits, a thread prefetches so many bytes of the weights that it will need next.
IDLE_BYTES = 1 << 17
# How often to look before letting another thread have the core (about 30 us).
PATIENCE = 1000


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


@inlined
def _run_plain(header: int, operation: int, record: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    function = load_i64(record + 8 * FUNCTION)
    call3(function, record + 8 * FIRST_ARGUMENT, chunk, scratch)


@device
def _run_checked(header: int, operation: int, record: int, chunk: int, scratch: int) -> None:
    """Run a chunk by itself; what comes after it is left out if it wanted memory not its own."""
    state, give_way = load_i64(header + 8 * STATE), load_i64(header + 8 * YIELD)
    table = load_i64(header + 8 * TABLES) + operation * load_i64(header + 8 * TABLE_STRIDE)
    block = record + 8 * FIRST_ARGUMENT
    scratch_end = scratch + load_i64(header + 8 * SCRATCH_STRIDE)
    begin_chunk(state, give_way)
    allow(state, table, block, block + BLOCK_BYTES, scratch, scratch_end)
    _run_plain(header, operation, record, chunk, scratch)
    if end_chunk(state, table):
        store_word(header + 8 * ABORT, 1)


_run_chunk = _run_checked if CHECKED else _run_plain


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
                _run_chunk(header, operation, record, chunk, scratch)
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
    def join(inside: int, give_way: int) -> None:
        """Wait until every worker of a job has left; `inside` counts those that have not."""
        while atomic_load(inside) > 0:
            call0(give_way)

    @entry
    def lead(header: int, inside: int, give_way: int) -> None:
        """What the leader thread does: its share as thread 0, then wait for the workers."""
        _execute(header, 0)
        join(inside, give_way)

    @entry
    def follow(header: int, thread: int, inside: int) -> None:
        """What a worker does: its share, then leave."""
        _execute(header, thread)
        atomic_add(inside, -1)
