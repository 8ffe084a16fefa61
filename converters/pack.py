"""convert: a source becomes a packed folder.

Decides for each matrix its number format and orientation, then streams: blocks of rows are read,
quantised and packed by a few threads, and written in order. Only a matrix that becomes input-major
is held whole. Knows nothing of file formats: sources read, the writer writes.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from converters.layout_bytes import block_layout, write_rows
from converters.quantize import Quantized, quantize
from sparity_edge.config import ModelConfig
from sparity_edge.errors import OptionError, SourceError
from sparity_edge.layout import GROUPS, SUPERBLOCK_GROUPS, UNIT, Layout, aligned_empty, round_up
from sparity_edge.progress import Progress, silent
from sparity_edge.shards import TensorSpec, spec_nbytes
from sparity_edge.writer import PackedWriter

if TYPE_CHECKING:
    from converters.sources import Source

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]
T = TypeVar("T")
R = TypeVar("R")
_Read = Callable[[str, int, int], "Quantized | Array"]

DTYPES = ("f32", "bf16", "int8", "int4")  # that floats become; superblocks are only kept
LAYOUTS = ("dense", "chess", "input")
DEFAULT_GROUP = 32
# Elements of a block: its float32 temporaries (4 MB each) stay near the cache, and a large
# embedding needs no more memory than a small one.
BLOCK_ELEMENTS = 1 << 20
MAX_WORKERS = 4  # more only wait for the one thread that writes
_CHESS_INPUT = ("q_proj.weight", "o_proj.weight", "down_proj.weight")


@dataclass(frozen=True)
class PackOptions:
    """What a packed folder is to be.

    Raises:
        OptionError: a value is unknown, or two contradict each other.
    """

    dtype: str | None = None  # None: the source's own integers, everything else int8
    group: int | None = None  # input channels that share a scale; None: the source's own, or 32
    layout: str = "dense"  # "dense", "chess" or "input": which matrices become input-major

    def __post_init__(self) -> None:
        _one_of("dtype", self.dtype, (None, *DTYPES))
        _one_of("group", self.group, (None, *GROUPS))
        _one_of("layout", self.layout, LAYOUTS)
        if self.dtype in ("f32", "bf16") and self.group is not None:
            raise OptionError(f"group {self.group} needs dtype int8 or int4, not {self.dtype}.")


def choose_layout(
    name: str,
    shape: tuple[int, int],
    native: tuple[str, int, bool] | None,
    options: PackOptions,
) -> Layout:
    """How the matrix `name` is stored.

    Args:
        name: its checkpoint name.
        shape: (outputs, inputs).
        native: (dtype, group, minimum) of the numbers in the source, None for plain floats.
        options: what was asked for.
    """
    block = name.startswith("model.layers.")
    turned = block and (
        options.layout == "input" or (options.layout == "chess" and name.endswith(_CHESS_INPUT))
    )
    if native and (turned or options.dtype is not None):
        native = _without_superblocks(native)
    dtype, group, minimum = _choose_numbers(block, native, options)
    return Layout(dtype, "input" if turned else "output", shape, group, minimum)


def convert(
    source: Source,
    out: str | os.PathLike[str],
    options: PackOptions,
    *,
    force: bool = False,
    progress: Progress = silent,
) -> Path:
    """Write `source` as a packed folder.

    Args:
        source: an open source; it stays open.
        out: the folder to be made. It appears at the end, complete.
        options: number format and orientation.
        force: replace an existing packed folder (or empty folder) at `out`.
        progress: told of packed bytes.

    Returns:
        The path of the folder.

    Raises:
        FormatError: `out` exists or cannot be written.
        SourceError: the source is damaged, or a weight does not fit the number format.
    """
    tensors = _plan(source, options)
    total = sum(spec_nbytes(spec) for spec in tensors.values())
    done = 0
    writer = PackedWriter(
        Path(out), tensors, source=source.label, options=asdict(options), force=force
    )
    workers = max(1, min(MAX_WORKERS, os.cpu_count() or 1))
    with writer, ThreadPoolExecutor(workers) as pool:
        for file_name, content in _small_files(source).items():
            writer.add_file(file_name, content)
        read = _one_reader(source)
        chunks = (chunk for name, spec in writer.tensors.items() for chunk in _chunks(name, spec))
        for chunk, data in _in_order(pool, workers, lambda job: _pack_chunk(read, job), chunks):
            writer.write(chunk.name, data)
            done += data.nbytes
            progress("pack", done, total)
    return Path(out)


@dataclass(frozen=True)
class _Chunk:
    """What one thread packs at a time: rows start:stop of a tensor."""

    name: str
    spec: TensorSpec
    start: int
    stop: int


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        names = ", ".join(str(item) for item in allowed if item is not None)
        raise OptionError(f"{name}={value!r} is not supported; use one of {names}.")


def _without_superblocks(native: tuple[str, int, bool]) -> tuple[str, int, bool] | None:
    """What numbers in superblocks are taken for where they cannot stay so; None: for floats."""
    if native[0] not in SUPERBLOCK_GROUPS:
        return native
    return ("int4", native[1], True) if native[0] == "int4k" else None


def _choose_numbers(
    block: bool, native: tuple[str, int, bool] | None, options: PackOptions
) -> tuple[str, int, bool]:
    if options.dtype is None:
        return native or ("int8", options.group or DEFAULT_GROUP, False)
    if options.dtype in ("f32", "bf16"):
        return options.dtype, 0, False
    # Embedding and head are too sensitive to be rounded to four bits; some come with four already.
    kept = {options.dtype} if block else {options.dtype, "int8"}
    if native and native[0] in kept and options.group in (None, native[1]):
        return native
    dtype = options.dtype if block else "int8"
    return dtype, options.group or DEFAULT_GROUP, dtype == "int4"


def _plan(source: Source, options: PackOptions) -> dict[str, TensorSpec]:
    shapes = ModelConfig.from_dict(source.config, source.generation_config).tensor_shapes()
    tensors: dict[str, TensorSpec] = {}
    for name, shape in shapes.items():
        if len(shape) == 2:
            tensors[name] = choose_layout(name, (shape[0], shape[1]), source.native(name), options)
        else:
            tensors[name] = shape
    return tensors


def _small_files(source: Source) -> dict[str, bytes]:
    files = {"config.json": _json(source.config)}
    if source.generation_config:
        files["generation_config.json"] = _json(source.generation_config)
    return {**files, **source.tokenizer_files}


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode(errors="replace")


def _chunks(name: str, spec: TensorSpec) -> Iterator[_Chunk]:
    if not isinstance(spec, Layout) or spec.orientation == "input":
        rows = spec.shape[0] if isinstance(spec, Layout) else spec[0]
        yield _Chunk(name, spec, 0, rows)
        return
    outputs, inputs = spec.shape
    step = round_up(max(1, BLOCK_ELEMENTS // inputs), UNIT)
    for start in range(0, outputs, step):
        stop = min(outputs, start + step)
        yield _Chunk(name, block_layout(spec, stop - start), start, stop)


def _in_order(
    pool: ThreadPoolExecutor, workers: int, work: Callable[[T], R], jobs: Iterable[T]
) -> Iterator[tuple[T, R]]:
    """Like `pool.map`, but only a few jobs ahead of the consumer, which bounds the memory."""
    waiting: deque[tuple[T, Future[R]]] = deque()
    try:
        for job in jobs:
            waiting.append((job, pool.submit(work, job)))
            if len(waiting) > workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def _one_reader(source: Source) -> _Read:
    """`source.read` for several threads, one at a time: sources share an open file."""
    lock = threading.Lock()

    def read(name: str, start: int, stop: int) -> Quantized | Array:
        with lock:
            return source.read(name, start, stop)

    return read


def _pack_chunk(read: _Read, chunk: _Chunk) -> Array:
    layout = chunk.spec
    if not isinstance(layout, Layout):
        vector = read(chunk.name, chunk.start, chunk.stop)
        floats = vector.dequantize() if isinstance(vector, Quantized) else vector
        return _finite(floats.reshape(layout), chunk.name)
    data = aligned_empty(layout.nbytes)
    data.fill(0)
    step = round_up(max(1, BLOCK_ELEMENTS // layout.shape[1]), UNIT)
    for start in range(0, layout.shape[0], step):
        stop = min(layout.shape[0], start + step)
        rows = _numbers(read, chunk.name, layout, chunk.start + start, chunk.start + stop)
        write_rows(data, rows, layout, start)
    return data


def _numbers(read: _Read, name: str, layout: Layout, start: int, stop: int) -> Quantized | Array:
    """Rows start:stop of a matrix in the number format of `layout`."""
    rows = read(name, start, stop)
    wanted = (layout.dtype, layout.group, layout.minimum)
    if isinstance(rows, Quantized) and rows.dtype == "int4k" and wanted == ("int4", 32, True):
        rows = rows.with_float_scales()
    if isinstance(rows, Quantized):
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
