"""Tensors of safetensors shards as they lie in the files, float8 included.

The safetensors library gives no float8 to NumPy, so the rows of a tensor are read here at their
place. Headers were checked by the library before; each place is compared with the file once more.
Knows nothing of what the numbers mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from converters.sources.source import unreadable
from sparity_edge.errors import SourceError

Array = npt.NDArray[Any]

TYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "U8": np.dtype("u1"),
    "I8": np.dtype("i1"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "I64": np.dtype("<i8"),
}
FLOATS = ("F32", "F16", "BF16")
LENGTH = 8  # bytes that a file begins with: the length of its header


@dataclass(frozen=True)
class Stored:
    """One tensor of one shard."""

    name: str
    path: Path
    dtype: str  # in the words of safetensors
    shape: tuple[int, ...]
    offset: int  # in the file

    @property
    def columns(self) -> int:
        """Elements of one row: of all that the first index leaves open."""
        return math.prod(self.shape[1:])

    def read(self, start: int = 0, stop: int | None = None) -> Array:
        """Rows start:stop, as an own copy; a scalar as it is.

        Args:
            start: the first row.
            stop: behind the last one; None: all that follow.

        Raises:
            SourceError: the file is cut short, or cannot be read.
        """
        rows = self.shape[0] if self.shape else 1
        stop = rows if stop is None else min(stop, rows)
        kind, count = TYPES[self.dtype], max(0, stop - start) * self.columns
        place = self.offset + start * self.columns * kind.itemsize
        try:
            content: Array = np.fromfile(self.path, np.uint8, count * kind.itemsize, offset=place)
        except OSError as error:
            raise unreadable(self.path, error) from error
        if len(content) != count * kind.itemsize:
            raise SourceError(f"{self.path}: cut short in tensor {self.name}; fetch it again.")
        shape = (stop - start, *self.shape[1:]) if self.shape else ()
        return content.view(kind).reshape(shape)


def as_float32(values: Array) -> npt.NDArray[np.float32]:
    """Floats of any type, exactly; those of bfloat16 by their bits, ten times as fast.

    Args:
        values: of any shape.
    """
    if values.dtype == ml_dtypes.bfloat16:
        return (values.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32, copy=False)


def stored_tensors(shards: Iterable[Path]) -> dict[str, Stored]:
    """All tensors of some shards; of one in two shards the last counts, as in transformers.

    Args:
        shards: files whose headers the safetensors library has accepted.

    Raises:
        SourceError: a file cannot be read, or a tensor does not lie within its file.
    """
    found: dict[str, Stored] = {}
    for path in shards:
        found.update(_tensors_of(path))
    return found


def _tensors_of(path: Path) -> dict[str, Stored]:
    found = {}
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH), "little")
            header = json.loads(file.read(length))
        size = path.stat().st_size
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
            kind = TYPES.get(entry["dtype"])
            place = LENGTH + length + begin
            whole = kind is None or math.prod(shape) * kind.itemsize == end - begin
            if not whole or begin < 0 or LENGTH + length + end > size:
                raise ValueError(f"tensor {ascii(name)[:80]} does not lie within it")
            found[name] = Stored(name, path, entry["dtype"], shape, place)
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SourceError(
            f"{path}: not a valid safetensors file ({type(error).__name__}); fetch it again."
        ) from error
    return found
