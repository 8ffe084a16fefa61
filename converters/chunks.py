"""Chunks: the pieces in which tensors are read, quantised and packed, by a few threads, in order.

Output-major matrices and bundles are packed some rows at a time; only a matrix that becomes
input-major is held whole, and one bundle, which the chunks of both its halves fill. Knows sources
and layouts, and nothing of files or of what decides about layouts.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from converters.numbers.bundle_bytes import DOWN_STEP, write_down, write_up
from converters.numbers.layout_bytes import rows_layout, write_rows
from converters.numbers.quantize import Quantized, quantize
from converters.unchanged import Unchanged
from sparity_edge.arrays import aligned_empty, round_up
from sparity_edge.errors import SourceError
from sparity_edge.packed.bundle import BundleLayout, halves_of
from sparity_edge.packed.layout import UNIT, Layout
from sparity_edge.packed.shards import TensorSpec

if TYPE_CHECKING:
    from converters.sources.source import Source

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
_Read = Callable[[str, int, int], "Quantized | Array"]

# Elements of such a part: its float32 temporaries (4 MB each) stay near the CPU, and a large
# embedding needs no more memory than a small one.
STEP_ELEMENTS = 1 << 20
COLUMNS = 256  # at whose multiples parts of an input-major matrix begin, in every number format


@dataclass(frozen=True)
class Chunk:
    """What one thread packs at a time: rows start:stop of a matrix or vector of the source."""

    name: str  # of the tensor that is stored
    nbytes: int  # its share of the bytes of that tensor
    source: str  # the tensor that is read
    spec: tuple[int, ...] | Layout  # of all rows, or of these alone where they stand by themselves
    start: int
    stop: int
    bundle: tuple[Bytes, BundleLayout] | None = None  # where the rows go
    complete: bool = True  # whether the memory holds bytes that can be written after this chunk


def chunks_of(name: str, spec: TensorSpec) -> Iterator[Chunk]:
    """The chunks of one tensor, those of a bundle with the memory that they fill."""
    if isinstance(spec, BundleLayout):
        yield from _bundle_chunks(name, spec)
    elif not isinstance(spec, Layout):
        yield Chunk(name, 4 * spec[0], name, spec, 0, spec[0])
    elif spec.orientation == "input":
        yield Chunk(name, spec.nbytes, name, spec, 0, spec.shape[0])
    else:
        for start, stop in _steps(spec, UNIT):
            part = rows_layout(spec, stop - start)
            yield Chunk(name, part.nbytes, name, part, start, stop)


def packed_in_order(
    source: Source, pool: ThreadPoolExecutor, workers: int, chunks: Iterable[Chunk]
) -> Iterator[tuple[Chunk, Array | None]]:
    """Each chunk with the bytes to be written after it, None where a bundle is not complete.

    Only a few chunks ahead of the consumer are packed, which bounds the memory. A layer has five
    matrices between one bundle and the next, at least as many chunks, so that with up to four
    workers one bundle is in memory at a time.
    """
    read = _one_reader(source)
    waiting: deque[tuple[Chunk, Future[Array | None]]] = deque()
    try:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(_pack, read, chunk)))
            del chunk
            if len(waiting) > workers:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)
    finally:
        for _, future in waiting:
            future.cancel()


def _first(waiting: deque[tuple[Chunk, Future[Array | None]]]) -> tuple[Chunk, Array | None]:
    chunk, future = waiting.popleft()
    return chunk, future.result()


def _bundle_chunks(name: str, spec: BundleLayout) -> Iterator[Chunk]:
    data = aligned_empty(spec.nbytes)
    data.fill(0)
    up, down = halves_of(name)
    parts = [(up, spec.up, *rows) for rows in _steps(spec.up, UNIT)]
    parts += [(down, spec.down, *rows) for rows in _steps(spec.down, DOWN_STEP)]
    for index, (half, layout, start, stop) in enumerate(parts):
        before, after = (spec.nbytes * count // len(parts) for count in (index, index + 1))
        last = index + 1 == len(parts)
        yield Chunk(name, after - before, half, layout, start, stop, (data, spec), last)


def _steps(layout: Layout, multiple: int) -> Iterator[tuple[int, int]]:
    """Rows of W cut into parts of about STEP_ELEMENTS that begin at a `multiple`."""
    outputs, inputs = layout.shape
    step = round_up(max(1, STEP_ELEMENTS // inputs), multiple)
    for start in range(0, outputs, step):
        yield start, min(outputs, start + step)


def _one_reader(source: Source) -> _Read:
    """`source.read` for several threads, one at a time: sources share an open file."""
    lock, unchanged = threading.Lock(), Unchanged(source.files)

    def read(name: str, start: int, stop: int) -> Quantized | Array:
        with lock:
            unchanged.demand()
            content = source.read(name, start, stop)
            unchanged.demand()
        return content

    return read


def _pack(read: _Read, chunk: Chunk) -> Array | None:
    layout = chunk.spec
    if not isinstance(layout, Layout):
        vector = read(chunk.source, chunk.start, chunk.stop)
        floats = vector.dequantize() if isinstance(vector, Quantized) else vector
        return _finite(floats.reshape(layout), chunk.source)
    if chunk.bundle is not None:
        data, bundle = chunk.bundle
        rows = _numbers(read, chunk.source, layout, chunk.start, chunk.stop)
        write = write_up if layout.orientation == "output" else write_down
        write(data, rows, bundle, chunk.start)
        return data if chunk.complete else None
    data = aligned_empty(layout.nbytes)
    data.fill(0)
    for start, stop in _steps(layout, UNIT if layout.orientation == "output" else COLUMNS):
        rows = _numbers(read, chunk.source, layout, chunk.start + start, chunk.start + stop)
        write_rows(data, rows, layout, start)
    return data


def _numbers(read: _Read, name: str, layout: Layout, start: int, stop: int) -> Quantized | Array:
    """Rows start:stop of a matrix in the number format of `layout`."""
    rows = read(name, start, stop)
    wanted = (layout.dtype, layout.group, layout.minimum)
    if isinstance(rows, Quantized):
        rows = rows.held_as(wanted)
        if (rows.dtype, rows.group, rows.minimums is not None) == wanted:
            return _finite_scales(rows, name)
        rows = _finite_scales(rows, name).dequantize()
    if layout.quantized:
        return quantize(rows, layout.dtype, layout.group, name)
    return _finite(rows, name, layout.dtype)


def _finite(values: Array, name: str, dtype: str = "f32") -> npt.NDArray[np.float32]:
    """`values` as float32, refused where they do not fit `dtype`."""
    floats = np.ascontiguousarray(values, dtype=np.float32)
    largest = float(np.abs(floats).max(initial=0))
    if not np.isfinite(largest):
        raise SourceError(
            f"{name} holds weights that are not finite numbers; "
            "the source is damaged, fetch it again."
        )
    # Half a step above the largest bfloat16: from there on it rounds to infinity.
    if dtype == "bf16" and largest >= float.fromhex("0x1.ffp127"):
        raise SourceError(f"{name} holds weights too large for bf16; convert with --dtype f32.")
    return floats


def _finite_scales(rows: Quantized, name: str) -> Quantized:
    for values in (rows.scales, rows.minimums, rows.factors):
        if values is not None and not np.isfinite(values).all():
            raise SourceError(
                f"{name} holds scales that are not finite numbers; "
                "the source is damaged, fetch it again."
            )
    return rows
