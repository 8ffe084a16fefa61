"""Arrays for activations, padded so that kernels may read whole vectors past the end of a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparity_edge.packed.layout import aligned_zeros, round_up

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[Any]  # float32, bfloat16 (ml_dtypes) or rows of int8 (cached.int8_row)

# Float32 numbers; the largest quantisation group, so that a filled-up row of weights fits as well.
ROW_MULTIPLE = 128


def rows(count: int, size: int) -> Floats:
    """A zeroed (count, size) view whose rows are 64-byte aligned and followed by zeros.

    Kernels rely on the zeros behind a row and write zeros there or nothing.
    """
    width = round_up(size, ROW_MULTIPLE)
    base = aligned_zeros(4 * count * width).view(np.float32).reshape(count, width)
    return base[:, :size]


def padded(vector: npt.ArrayLike) -> Floats:
    """A copy of a vector, padded as a row of `rows` is."""
    source = np.asarray(vector, dtype=np.float32)
    result: Floats = rows(1, source.size)[0]
    result[:] = source
    return result
