"""Numbers in superblocks to bytes and back: the output-major rows of int4k and int6k.

A superblock has 256 inputs, four units of 64. In a unit four elements of each of its four sixteens
take turns, so that the sums of a byte dot product come by sixteens; docs/format.md draws it. Moves
values only, as converters/layout_bytes.py does for the other formats.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from converters.quantize import Quantized
from sparity_edge.layout import SUPERBLOCK, Layout

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


def write_superblocks(data: Bytes, weights: Quantized, layout: Layout, start: int) -> None:
    """Put the output channels start ... of a matrix at their places in `data` (layout.nbytes,)."""
    rows = data.reshape(-1, layout.row_bytes)[start : start + len(weights.numbers)]
    count, blocks = len(rows), layout.shape[1] // SUPERBLOCK
    assert weights.factors is not None
    if layout.dtype == "int4k":
        assert weights.minimums is not None
        kinds = [each.reshape(count, blocks, 8) for each in (weights.scales, weights.minimums)]
        scales, numbers = np.concatenate(kinds, axis=2), weights.numbers
    else:
        scales = _by_turns(weights.scales.view(np.uint8), 1)
        numbers = (weights.numbers + np.int8(32)).view(np.uint8)
    factors = np.ascontiguousarray(weights.factors, dtype="<f2").view(np.uint8)
    end = 16 * blocks
    rows[:, :end] = scales.reshape(count, end)
    rows[:, end : end + 2 * blocks * weights.factors.shape[2]] = factors.reshape(count, -1)
    units = _by_turns(numbers, 16).reshape(count, blocks, 4, 64)
    join = _join_fours if layout.dtype == "int4k" else _join_sixes
    place = rows[:, layout.header_bytes : layout.header_bytes + layout.number_bytes]
    place[:] = join(units).reshape(place.shape)


def read_superblocks(data: Bytes, layout: Layout, start: int, stop: int) -> Quantized:
    """What `write_superblocks` wrote, output channels start:stop."""
    rows = data.reshape(-1, layout.row_bytes)[start:stop]
    count, blocks = len(rows), layout.shape[1] // SUPERBLOCK
    end, kinds = 16 * blocks, 1 + layout.minimum
    scales = np.ascontiguousarray(rows[:, :end])
    factors = np.ascontiguousarray(rows[:, end : end + 2 * blocks * kinds]).view("<f2")
    factors = factors.reshape(count, blocks, kinds)
    packed = rows[:, layout.header_bytes : layout.header_bytes + layout.number_bytes]
    packed = packed.reshape(count, blocks, -1, 64)
    split = _split_fours if layout.dtype == "int4k" else _split_sixes
    numbers = _in_order(split(packed), 16).reshape(count, -1)
    if layout.dtype == "int6k":
        values = numbers.view(np.int8) - np.int8(32)
        signed = _in_order(scales, 1).view(np.int8)
        return Quantized("int6k", layout.group, values, signed, None, factors)
    both = scales.reshape(count, blocks, 2, 8)
    ordered, minimums = (both[:, :, kind].reshape(count, -1) for kind in (0, 1))
    return Quantized("int4k", layout.group, numbers, ordered, minimums, factors)


def _by_turns(values: Array, size: int) -> Array:
    """Rows in which pieces of four (or one) of the sixteens 0, 2, 1 and 3 of a unit take turns."""
    piece = min(size, 4)
    units = values.reshape(len(values), -1, 2, 2, size // piece, piece)
    return np.ascontiguousarray(units.transpose(0, 1, 4, 3, 2, 5)).reshape(len(values), -1)


def _in_order(values: Array, size: int) -> Array:
    """The inverse of `_by_turns` for sixteens of `size` elements."""
    piece = min(size, 4)
    units = values.reshape(len(values), -1, size // piece, 2, 2, piece)
    return np.ascontiguousarray(units.transpose(0, 1, 4, 3, 2, 5)).reshape(len(values), -1)


def _join_fours(units: Bytes) -> Bytes:
    """(..., 4, 64) of 0..15 to (..., 2, 64): of two units the first is low."""
    joined: Bytes = units[..., 0::2, :] | units[..., 1::2, :] << np.uint8(4)
    return joined


def _split_fours(packed: Bytes) -> Bytes:
    return np.stack([packed & 15, packed >> 4], axis=3).reshape(*packed.shape[:2], 4, 64)


def _join_sixes(units: Bytes) -> Bytes:
    """(..., 4, 64) of 0..63 to (..., 3, 64): the last unit stands in the top bits of the others."""
    shifts = np.array([[0], [2], [4]], dtype=np.uint8)
    tops = units[..., 3:, :] >> shifts << np.uint8(6)  # what is above the two bits falls out
    joined: Bytes = np.bitwise_or(units[..., :3, :], tops)
    return joined


def _split_sixes(packed: Bytes) -> Bytes:
    top = packed >> 6
    last = top[..., 0, :] | top[..., 1, :] << 2 | top[..., 2, :] << 4
    return np.concatenate([packed & 63, last[..., None, :]], axis=2)
