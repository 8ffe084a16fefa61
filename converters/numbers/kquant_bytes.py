"""K-quants to bytes and back: their output-major rows.

512 inputs (two superblocks of llama.cpp) are a block, in which four inputs of each of its 16 groups
of 32 are interleaved, so that the sums of a byte dot product come by groups; half a block at the
end of a row has 8 groups. docs/format.md draws both. Moves values only, as layout_bytes.py does for
the other formats; `sparity_edge.kernels.reference.unpack` is the oracle of the reading here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.numbers.five_bytes import join_fives, split_fives
from converters.numbers.low_bytes import (
    join_iq4,
    join_sixes,
    join_threes,
    join_twos,
    split_iq4,
    split_sixes,
    split_threes,
    split_twos,
)
from converters.numbers.quantize import Quantized
from sparity_edge.packed.layout import K_QUANT_SCALES, SUPERBLOCK, Layout

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Part:
    """Superblocks start..stop-1 of each row, by blocks of the same number of groups."""

    start: int
    stop: int
    groups: int

    def of(self, values: Array, each: int) -> Array:
        """The view (rows, blocks, columns) of rows in which a superblock has `each` columns."""
        blocks = 8 * (self.stop - self.start) // self.groups
        return values[:, each * self.start : each * self.stop].reshape(len(values), blocks, -1)


def _parts(layout: Layout) -> Iterator[_Part]:
    blocks = layout.shape[1] // SUPERBLOCK
    paired = blocks // 2 * 2
    if paired:
        yield _Part(0, paired, 16)
    if paired < blocks:
        yield _Part(paired, blocks, 8)


def write_k_quants(data: Bytes, weights: Quantized, layout: Layout, start: int) -> None:
    """Put the output channels start ... of a matrix at their places in `data` (layout.nbytes,)."""
    count = len(weights.numbers)
    rows = _rows(data, layout)[start : start + count]
    assert weights.factors is not None
    factors = np.ascontiguousarray(weights.factors, dtype="<f2").reshape(count, -1).view(np.uint8)
    for part in _parts(layout):
        numbers = part.of(weights.numbers, SUPERBLOCK)
        scales = part.of(weights.scales, SUPERBLOCK // layout.group)
        if layout.minimum:
            assert weights.minimums is not None
            minimums = part.of(weights.minimums, SUPERBLOCK // layout.group)
            scales = _join_minimums(scales, minimums, layout)
        else:
            scales = _join_scales(scales, layout)
        behind = part.of(rows[:, layout.number_bytes :], K_QUANT_SCALES[layout.dtype])
        behind[:, :, : scales.shape[2]] = scales
        behind[:, :, scales.shape[2] :] = part.of(factors, 2 + 2 * layout.minimum)
        place = part.of(rows, layout.number_bytes * SUPERBLOCK // layout.padded)
        place[:] = _pack(numbers, layout, part.groups).reshape(place.shape)


def read_k_quants(data: Bytes, layout: Layout, start: int, stop: int) -> Quantized:
    """The output channels start:stop of a matrix that `write_k_quants` wrote."""
    rows = _rows(data, layout)[start:stop]
    read = [_read(rows, layout, part) for part in _parts(layout)]
    numbers, scales, minimums, factors = (
        np.concatenate([each.reshape(len(rows), -1) for each in kind], axis=1)
        for kind in zip(*read)
    )
    factors = factors.view("<f2").reshape(len(rows), -1, 1 + layout.minimum)
    least = minimums if layout.minimum else None
    return Quantized(layout.dtype, layout.group, numbers, scales, least, factors)


def _pack(numbers: Array, layout: Layout, groups: int) -> Bytes:
    """Numbers of blocks (rows, blocks, inputs) as bytes, in whatever shape."""
    if layout.dtype in ("int5k", "iq4k"):
        join = join_fives if layout.dtype == "int5k" else join_iq4
        return join(numbers.reshape(-1, 32 * groups))
    fours = _interleaved(numbers, groups)
    if layout.dtype == "int4k":
        return _join_fours(fours)
    if layout.dtype == "int2k":
        return join_twos(fours)
    if layout.dtype == "int3k":
        return join_threes((fours + np.int8(4)).view(np.uint8))
    return join_six_bits((fours + np.int8(32)).view(np.uint8))


def _join_minimums(scales: Array, minimums: Array, layout: Layout) -> Bytes:
    """Scales and minima of blocks (rows, blocks, scales) as bytes."""
    if layout.dtype == "int2k":
        return _halves(scales | minimums << np.uint8(4))
    return _join_twelves(scales, minimums)


def _join_scales(scales: Array, layout: Layout) -> Bytes:
    """Signed scales of blocks (rows, blocks, scales) as bytes."""
    if layout.dtype == "iq4k":
        return join_sixes(scales)
    if layout.dtype == "int3k":
        sixes = (scales + np.int8(32)).view(np.uint8)
        return _join_twelves(sixes[..., 0::2], sixes[..., 1::2])
    return _halves(scales)


def _split_scales(packed: Bytes, groups: int, layout: Layout) -> tuple[Array, Array]:
    """Scales of blocks of so many groups, and minima, of which there may be none."""
    if layout.dtype == "iq4k":
        scales = split_sixes(packed)
        return scales, scales[:, :, :0]
    if layout.dtype in ("int4k", "int5k"):
        return _split_twelves(packed)
    if layout.dtype == "int3k":
        pairs = np.stack(_split_twelves(packed), axis=3).reshape(*packed.shape[:2], -1)
        scales = pairs.view(np.int8) - np.int8(32)
        return scales, scales[:, :, :0]
    in_order = np.ascontiguousarray(packed.reshape(*packed.shape[:2], 2, groups).swapaxes(2, 3))
    if layout.dtype == "int2k":
        return in_order & 15, in_order >> 4
    return in_order.view(np.int8), in_order[:, :, :0]


def _read(rows: Bytes, layout: Layout, part: _Part) -> tuple[Array, Array, Array, Bytes]:
    """Numbers, scales, minima (or nothing) and the bytes of factors of one part."""
    packed = part.of(rows, layout.number_bytes * SUPERBLOCK // layout.padded)
    behind = part.of(rows[:, layout.number_bytes :], K_QUANT_SCALES[layout.dtype])
    width = behind.shape[2] - part.groups // 8 * (2 + 2 * layout.minimum)
    scales = _split_scales(behind[:, :, :width], part.groups, layout)
    return _unpack(packed, layout, part.groups), *scales, behind[:, :, width:]


def _unpack(packed: Bytes, layout: Layout, groups: int) -> Array:
    """The inverse of `_pack`."""
    if layout.dtype in ("int5k", "iq4k"):
        split = split_fives if layout.dtype == "int5k" else split_iq4
        return split(packed.reshape(-1, packed.shape[2])).reshape(*packed.shape[:2], -1)
    if layout.dtype == "int3k":
        return _in_order(split_threes(packed).view(np.int8) - np.int8(4), groups)
    lines = packed.reshape(*packed.shape[:2], -1, 64)
    if layout.dtype == "int2k":
        return _in_order(split_twos(lines), groups)
    if layout.dtype == "int4k":
        return _in_order(_split_fours(lines), groups)
    return _in_order(split_six_bits(lines).view(np.int8) - np.int8(32), groups)


def _rows(data: Bytes, layout: Layout) -> Bytes:
    """The rows (outputs, row_bytes) of a matrix, which may be filled up behind them."""
    return data[: len(data) // layout.row_bytes * layout.row_bytes].reshape(-1, layout.row_bytes)


def _interleaved(numbers: Array, groups: int) -> Array:
    """(rows, blocks, inputs) to (rows, blocks, vectors, 64), fours of all groups interleaved.

    With 8 groups, fours of the first half of each stand beside those of the second.
    """
    fours = numbers.reshape(*numbers.shape[:2], groups, 2, 4, 4)  # group, half, four, input
    axes = (0, 1, 3, 4, 2, 5) if groups == 16 else (0, 1, 4, 3, 2, 5)
    return fours.transpose(axes).reshape(*numbers.shape[:2], -1, 64)


def _in_order(vectors: Array, groups: int) -> Array:
    """The inverse of `_interleaved`."""
    if groups == 16:
        fours = vectors.reshape(*vectors.shape[:2], 2, 4, 16, 4).transpose(0, 1, 4, 2, 3, 5)
    else:
        fours = vectors.reshape(*vectors.shape[:2], 4, 2, 8, 4).transpose(0, 1, 4, 3, 2, 5)
    return fours.reshape(*vectors.shape[:2], -1)


def _join_fours(vectors: Bytes) -> Bytes:
    """(..., 2 n, 64) of 0..15 to (..., n, 64): of two vectors the first is low."""
    joined: Bytes = vectors[..., 0::2, :] | vectors[..., 1::2, :] << np.uint8(4)
    return joined


def _split_fours(packed: Bytes) -> Bytes:
    return np.stack([packed & 15, packed >> 4], axis=3).reshape(*packed.shape[:2], -1, 64)


def join_six_bits(vectors: Bytes) -> Bytes:
    """(..., 4 n, 64) of 0..63 to (..., n, 3, 64): each fourth stands on top of the others."""
    fours = vectors.reshape(*vectors.shape[:2], -1, 4, 64)
    shifts = np.array([[0], [2], [4]], dtype=np.uint8)
    tops = fours[..., 3:, :] >> shifts << np.uint8(6)  # what is above the two bits falls out
    joined: Bytes = np.bitwise_or(fours[..., :3, :], tops)
    return joined


def split_six_bits(packed: Bytes) -> Bytes:
    """The inverse of `join_six_bits`: (..., 4 n, 64)."""
    threes = packed.reshape(*packed.shape[:2], -1, 3, 64)
    top = threes >> 6
    last = top[..., 0, :] | top[..., 1, :] << 2 | top[..., 2, :] << 4
    whole = np.concatenate([threes & 63, last[..., None, :]], axis=3)
    return whole.reshape(*packed.shape[:2], -1, 64)


def _join_twelves(scales: Array, minimums: Array) -> Bytes:
    """Scales and minima, 0..63, of an even number of groups: twelve bits each, the scale low."""
    assert max(scales.max(), minimums.max()) < 64
    twelves = (scales | minimums.astype("<u4") << 6).reshape(*scales.shape[:2], -1, 2)
    pairs = (twelves[..., 0] | twelves[..., 1] << 12).astype("<u4")
    threes: Bytes = pairs[..., None].view(np.uint8)[..., :3]
    return threes.reshape(*scales.shape[:2], -1)


def _split_twelves(packed: Bytes) -> tuple[Bytes, Bytes]:
    threes = packed.reshape(*packed.shape[:2], -1, 3).astype("<u4")
    pairs = threes[..., 0] | threes[..., 1] << 8 | threes[..., 2] << 16
    twelves = np.stack([pairs & 4095, pairs >> 12], axis=3).reshape(*packed.shape[:2], -1)
    return (twelves & 63).astype(np.uint8), (twelves >> 6).astype(np.uint8)


def _halves(scales: Array) -> Bytes:
    """Scales of sixteens: of the first halves of the groups of a block, then of the second."""
    pairs = scales.reshape(*scales.shape[:2], -1, 2).swapaxes(2, 3)
    return np.ascontiguousarray(pairs).view(np.uint8).reshape(scales.shape)
