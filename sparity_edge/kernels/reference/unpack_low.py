"""Values of rows of two, three and (iq4, iq4k) four bits in plain NumPy, from docs/format.md.

Shares no code with `converters.numbers.low_bytes`: see `unpack`. Blocks are unpacked bit by bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import Floats
from sparity_edge.packed.layout import IQ4_VALUES

Bytes = npt.NDArray[np.uint8]
# Of three bits: where each vector's bits stand, lowest first, as (line, bit); of a block, and of
# half a block, whose second line is of nibbles.
_THREES = [[(v // 2, v % 2 * 3 + bit) for bit in range(3)] for v in range(6)]
_THREES += [[(2, 6), (0, 6), (0, 7)], [(2, 7), (1, 6), (1, 7)]]
_HALF_THREES = [*_THREES[:2], [(1, 3), (0, 6), (0, 7)], [(1, 0), (1, 1), (1, 2)]]


def iq4_values(rows: Bytes, size: int) -> Floats:
    """Values (n, size) of rows of iq4 before scales: by blocks of sixteen groups, at last fewer."""
    parts = []
    for start in range(0, size, 512):
        inputs = min(512, size - start)
        lines = rows[:, start // 2 : (start + inputs) // 2].reshape(len(rows), 4, -1, 4)
        halves = np.stack([lines & 15, lines >> 4], axis=1)  # (rows, half, line, group, 4)
        places = halves.transpose(0, 3, 1, 2, 4).reshape(len(rows), inputs)
        parts.append(np.array(IQ4_VALUES, dtype=np.float32)[places])
    return np.concatenate(parts, axis=1)


def iq4k_blocks(packed: Bytes, scales: Bytes, groups: int) -> Floats:
    """(rows, blocks, groups, 2, 16) of blocks of iq4k and the bytes of their scales."""
    values = iq4_values(packed.reshape(-1, packed.shape[2]), 32 * groups)
    bits = np.unpackbits(scales[:, :, : groups * 6 // 8], axis=2, bitorder="little")
    sixes = bits.reshape(*bits.shape[:2], groups, 6) @ (1 << np.arange(6)) - 32
    of_groups = sixes.astype(np.float32) * _factors(scales, groups)
    return of_groups[..., None, None] * values.reshape(*of_groups.shape, 2, 16)


def int3k_blocks(packed: Bytes, scales: Bytes, groups: int) -> Floats:
    """(rows, blocks, groups, 2, 16) of blocks of int3k and the bytes of their scales."""
    lines = [packed[..., start : start + 64] for start in range(0, packed.shape[2], 64)]
    if groups == 8:
        lines[1] = np.concatenate([lines[1] & 15, lines[1] >> 4], axis=2)
    places = _THREES if groups == 16 else _HALF_THREES
    vectors = [
        sum((lines[line] >> bit & 1) << n for n, (line, bit) in enumerate(each)) for each in places
    ]
    bits = np.unpackbits(scales[:, :, : groups * 12 // 8], axis=2, bitorder="little")
    sixes = bits.reshape(*bits.shape[:2], groups, 2, 6) @ (1 << np.arange(6)) - 32
    of_halves = sixes.astype(np.float32) * _factors(scales, groups)[..., None]
    return of_halves[..., None] * (_in_order(np.stack(vectors, axis=2), groups) - 4)


def int2k_blocks(packed: Bytes, scales: Bytes, groups: int) -> Floats:
    """(rows, blocks, groups, 2, 16) of blocks of int2k and the bytes of their scales."""
    lines = packed.reshape(*packed.shape[:2], -1, 64)
    vectors = np.stack([lines >> 2 * n & 3 for n in range(4)], axis=3)
    numbers = _in_order(vectors.reshape(*packed.shape[:2], -1, 64), groups)
    fours = scales[:, :, : 2 * groups].reshape(*packed.shape[:2], 2, groups).swapaxes(2, 3)
    factors = scales[:, :, 2 * groups :].copy().view(np.float16).astype(np.float32)
    factors = np.repeat(factors.reshape(*packed.shape[:2], -1, 2), 8, axis=2)[:, :, :, None]
    minima = factors[..., 1] * (fours >> 4)
    return (factors[..., 0] * (fours & 15))[..., None] * numbers - minima[..., None]


def _factors(scales: Bytes, groups: int) -> Floats:
    """(rows, blocks, groups): the float16 behind the scales, one for eight groups."""
    halves = scales[:, :, -groups // 4 :].copy().view(np.float16).astype(np.float32)
    return np.repeat(halves, 8, axis=2)


def _in_order(vectors: Bytes, groups: int) -> Floats:
    """(rows, blocks, vectors, 64) to (rows, blocks, groups, half of a group, 16)."""
    if groups == 16:
        fours = vectors.reshape(*vectors.shape[:2], 2, 4, 16, 4).transpose(0, 1, 4, 2, 3, 5)
    else:
        fours = vectors.reshape(*vectors.shape[:2], 4, 2, 8, 4).transpose(0, 1, 4, 3, 2, 5)
    return fours.reshape(*vectors.shape[:2], groups, 2, 16).astype(np.float32)
