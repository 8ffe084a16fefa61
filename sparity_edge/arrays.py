"""Arrays as kernels want them: aligned to cache lines, rows padded with zeros; and their types.

Kernels read whole vectors, also past the end of a row, so a row of activations is followed by zeros
up to a multiple of `ROW_MULTIPLE`. Knows neither matrices nor what is computed; imports no Numba.
"""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[Any]  # float32, bfloat16 (ml_dtypes) or rows of int8 (kv_format.int8_row)

ALIGNMENT = 64  # bytes: a cache line, and one AVX-512 vector
# Bytes behind an array that kernels may read, since they read whole vectors; never written.
TAIL = 64
MAPPED_BYTES = 1 << 20  # from here on `aligned_zeros` asks the system and not the heap
# Float32 numbers; the largest quantisation group, so that a filled-up row of weights fits as well.
ROW_MULTIPLE = 128


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least `value`."""
    return -(-value // multiple) * multiple


def aligned_empty(nbytes: int) -> Bytes:
    """An uninitialised uint8 array (nbytes,), 64-byte aligned and followed by TAIL bytes."""
    # NumPy aligns to 16 bytes only; big arrays it marks for huge pages, which the view keeps.
    arena = np.empty(ALIGNMENT + nbytes + TAIL, dtype=np.uint8)
    start = -arena.ctypes.data % ALIGNMENT
    return arena[start : start + nbytes]


def aligned_zeros(nbytes: int, mapped: int = MAPPED_BYTES) -> Bytes:
    """A zeroed uint8 array (nbytes,), 64-byte aligned and followed by TAIL bytes.

    A large array is a mapping of its own: pages that are never touched take no memory, and all of
    it goes back to the system at once. From the heap, the 60 MB that a prompt takes in an 8B model
    would stay with the process.

    Args:
        nbytes: how many.
        mapped: from how many on an array is a mapping.
    """
    if nbytes < mapped or not hasattr(mmap, "MAP_PRIVATE"):  # as on Windows
        arena = aligned_empty(nbytes)
        arena[:] = 0
        return arena
    mapping = mmap.mmap(-1, nbytes + TAIL, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without huge pages
            mapping.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapping, dtype=np.uint8)[:nbytes]


def rows(count: int, size: int) -> Floats:
    """A zeroed (count, size) view whose rows are 64-byte aligned and followed by zeros.

    Kernels rely on the zeros behind a row and write zeros there or nothing.
    """
    width = round_up(size, ROW_MULTIPLE)
    base = aligned_zeros(4 * count * width).view(np.float32).reshape(count, width)
    return base[:, :size]


def padded(vector: npt.ArrayLike) -> Floats:
    """A float32 copy (size,) of a vector, followed by zeros as a row of `rows` is."""
    source = np.asarray(vector, dtype=np.float32)
    result: Floats = rows(1, source.size)[0]
    result[:] = source
    return result
