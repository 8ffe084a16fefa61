"""What this machine's memory gives at most: streaming reads and reads of random rows.

The kernels read with sixteen-lane loads and add up what they read, so nothing can be optimised
away and nothing but memory can be slow (from L1 they do some 150 GB/s a core). They run on the same
team of threads, in chunks taken from the same counter, as the kernels that are compared to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from sparity_edge.arrays import aligned_empty
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.program.program import Program
from sparity_edge.kernels.program.team import Team
from sparity_edge.kernels.simd.memory import load, load_i64, store_f32
from sparity_edge.kernels.simd.prefetch import prefetch, prefetch_non_temporal
from sparity_edge.kernels.simd.vectors import add, splat, total

POOL_BYTES = 768 << 20  # many times the third-level cache of any laptop
LINE = 64
STREAM_CHUNK = 1 << 18
STREAM_AHEAD = 8192  # 4 KB and chunks of 64 KB are the same on Zen 5; into L2 or L1 costs 4 %
SPARE = 1 << 16  # behind the pool, so that asking ahead stays inside
GATHER_CHUNK = 1 << 16  # bytes of rows in one chunk
GATHER_AHEAD = 4096  # bytes of rows asked for before they are read, at least one row
MOST_AHEAD = 64  # rows

DATA, NBYTES, AHEAD, OUT = (8 * word for word in range(4))
ROWS, COUNT, STEP, ROW_BYTES, DISTANCE = (8 * word for word in range(4, 9))


@Kernel
def read_stream(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Add up NBYTES (a multiple of 256) of DATA from chunk * NBYTES on."""
    place = load_i64(arguments + DATA) + chunk * load_i64(arguments + NBYTES)
    end, ahead = place + load_i64(arguments + NBYTES), load_i64(arguments + AHEAD)
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    while place < end:
        prefetch_non_temporal(place + ahead)
        prefetch_non_temporal(place + ahead + 64)
        prefetch_non_temporal(place + ahead + 128)
        prefetch_non_temporal(place + ahead + 192)
        a = add(a, load(place))
        b = add(b, load(place + 64))
        c = add(c, load(place + 128))
        d = add(d, load(place + 192))
        place += 256
    store_f32(load_i64(arguments + OUT) + 64 * chunk, total(add(add(a, b), add(c, d))))


@Kernel
def read_rows(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Add up STEP rows of ROW_BYTES (a multiple of 64); ROWS lists where each starts in DATA.

    Reading row i asks for row i + DISTANCE; the list goes on for DISTANCE rows past its end.
    """
    data, rows = load_i64(arguments + DATA), load_i64(arguments + ROWS)
    row_bytes, distance = load_i64(arguments + ROW_BYTES), load_i64(arguments + DISTANCE)
    first = chunk * load_i64(arguments + STEP)
    last = min(first + load_i64(arguments + STEP), load_i64(arguments + COUNT))
    a, b = splat(0.0), splat(0.0)
    for i in range(first, last):
        place = data + load_i64(rows + 8 * i)
        later = data + load_i64(rows + 8 * (i + distance))
        for offset in range(0, row_bytes - 64, 128):
            prefetch(later + offset)
            prefetch(later + offset + 64)
            a = add(a, load(place + offset))
            b = add(b, load(place + offset + 64))
        if row_bytes % 128 != 0:
            prefetch(later + row_bytes - 64)
            a = add(a, load(place + row_bytes - 64))
    store_f32(load_i64(arguments + OUT) + 64 * chunk, total(add(a, b)))


class _Reading(Program):
    """A program of one reading kernel."""

    def __init__(self, threads: int, kernel: Kernel, chunks: int, *arguments: Any) -> None:
        super().__init__(threads)
        self.out = aligned_empty(LINE * chunks).view(np.float32)  # a line for each chunk's sum
        self._record(kernel, chunks, *arguments[:3], self.out, *arguments[3:])


class Memory:
    """A pool of memory and the threads that read it.

    Args:
        threads: how many read.
        nbytes: of the pool; a multiple of 1 MB.
        other: whose pool to read instead of an own one.
    """

    def __init__(self, threads: int, nbytes: int = POOL_BYTES, other: Memory | None = None) -> None:
        assert nbytes % (1 << 20) == 0
        self.nbytes = nbytes
        self.threads = threads
        if other is None:
            self.pool = aligned_empty(nbytes + SPARE)
            self.pool.view(np.float32)[:] = 1.0  # what was never written is one page of zeros
        else:
            assert nbytes <= other.nbytes
            self.pool = other.pool
        self._team = Team(threads)
        self._team.compile()

    def close(self) -> None:
        """Send the threads home."""
        self._team.close()

    def streaming(
        self, seconds: float = 0.0, chunk: int = STREAM_CHUNK, ahead: int = STREAM_AHEAD
    ) -> Callable[[], float]:
        """A function that reads the whole pool, again and again for `seconds`, and gives GB/s."""
        chunks = self.nbytes // chunk
        program = _Reading(self.threads, read_stream, chunks, self.pool, chunk, ahead)
        return self._speed(program, self.nbytes, seconds)

    def gathering(
        self, row_bytes: int, density: float, seed: int = 0, ahead: int = GATHER_AHEAD
    ) -> Callable[[], float]:
        """A function that reads a share of the pool's rows, in ascending order: useful GB/s."""
        every = self.nbytes // row_bytes
        count = max(1, round(density * every))
        chosen = np.random.default_rng(seed).choice(every, count, replace=False)
        distance = min(MOST_AHEAD, max(1, ahead // row_bytes))
        places = np.full(count + distance, self.nbytes - row_bytes, dtype=np.int64)
        places[:count] = np.sort(chosen) * row_bytes
        step = max(1, GATHER_CHUNK // row_bytes)
        program = _Reading(
            self.threads, read_rows, -(-count // step),
            self.pool, 0, 0, places, count, step, row_bytes, distance,
        )  # fmt: skip
        return self._speed(program, count * row_bytes)

    def _speed(self, program: Program, nbytes: int, seconds: float = 0.0) -> Callable[[], float]:
        def run() -> float:
            start, passes = time.perf_counter(), 0
            while passes == 0 or time.perf_counter() - start < seconds:
                self._team.run(program)
                passes += 1
            return passes * nbytes / (time.perf_counter() - start) / 1e9

        return run
