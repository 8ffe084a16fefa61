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
from sparity_edge.kernels.program.recorder import Recorder
from sparity_edge.kernels.program.team import Team
from sparity_edge.kernels.simd.memory import (
    load,
    load_i64,
    prefetch,
    prefetch_non_temporal,
    store_f32,
)
from sparity_edge.kernels.simd.vectors import add, splat, total
from sparity_edge.kernels.words import Words

POOL_BYTES = 768 << 20  # many times the third-level cache of any laptop
LINE = 64
STREAM_CHUNK = 1 << 18
STREAM_AHEAD = 8192  # 4 KB and chunks of 64 KB are the same on Zen 5; into L2 or L1 costs 4 %
SPARE = 1 << 16  # behind the pool, so that prefetches stay inside
GATHER_CHUNK = 1 << 16  # bytes of rows in one chunk
GATHER_AHEAD = 4096  # prefetch distance in bytes of rows, at least one row
MOST_AHEAD = 64  # rows

# A chunk adds up NBYTES of DATA, prefetching AHEAD bytes on, to a line of OUT.
STREAM = Words("data nbytes ahead out")
# COUNT rows of ROW_BYTES, STEP of them a chunk, prefetching DISTANCE rows on.
GATHER = Words("data rows count step row_bytes distance out")


@Kernel(STREAM)
def read_stream(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Add up NBYTES (a multiple of 256) of DATA from chunk * NBYTES on."""
    place = load_i64(arguments + STREAM.data) + chunk * load_i64(arguments + STREAM.nbytes)
    end, ahead = place + load_i64(arguments + STREAM.nbytes), load_i64(arguments + STREAM.ahead)
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
    store_f32(load_i64(arguments + STREAM.out) + 64 * chunk, total(add(add(a, b), add(c, d))))


@Kernel(GATHER)
def read_rows(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Add up STEP rows of ROW_BYTES (a multiple of 64); ROWS lists where each starts in DATA.

    Reading row i prefetches row i + DISTANCE; the list goes on for DISTANCE rows past its end.
    """
    data, rows = load_i64(arguments + GATHER.data), load_i64(arguments + GATHER.rows)
    row_bytes = load_i64(arguments + GATHER.row_bytes)
    distance = load_i64(arguments + GATHER.distance)
    first = chunk * load_i64(arguments + GATHER.step)
    last = min(first + load_i64(arguments + GATHER.step), load_i64(arguments + GATHER.count))
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
    store_f32(load_i64(arguments + GATHER.out) + 64 * chunk, total(add(a, b)))


def _reading(threads: int, kernel: Kernel, chunks: int, **words: Any) -> Recorder:
    """A program of one reading kernel."""
    recorder = Recorder(threads)
    out = aligned_empty(LINE * chunks).view(np.float32)  # a line for each chunk's sum
    recorder.record(kernel, chunks, **words, out=out)
    return recorder


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
        """Give the threads back."""
        self._team.close()

    def streaming(
        self, seconds: float = 0.0, chunk: int = STREAM_CHUNK, ahead: int = STREAM_AHEAD
    ) -> Callable[[], float]:
        """A function that reads the whole pool, again and again for `seconds`, and gives GB/s."""
        chunks = self.nbytes // chunk
        program = _reading(
            self.threads, read_stream, chunks, data=self.pool, nbytes=chunk, ahead=ahead
        )
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
        program = _reading(
            self.threads, read_rows, -(-count // step), data=self.pool, rows=places, count=count,
            step=step, row_bytes=row_bytes, distance=distance,
        )  # fmt: skip
        return self._speed(program, count * row_bytes)

    def _speed(self, program: Recorder, nbytes: int, seconds: float = 0.0) -> Callable[[], float]:
        def run() -> float:
            start, passes = time.perf_counter(), 0
            while passes == 0 or time.perf_counter() - start < seconds:
                self._team.run(program)
                passes += 1
            return passes * nbytes / (time.perf_counter() - start) / 1e9

        return run
