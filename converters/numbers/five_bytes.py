"""Five-bit numbers to bytes and back: eight vectors of a block stand in five lines.

Line k holds vector k in its low five bits; what is above them are vectors 5, 6 and 7, as drawn in
docs/format.md. Blocks have sixteen groups of 32 inputs, the last one of a row those that are left,
and its lines are as much shorter. Moves values only, for rows of int5 and int5k.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

GROUPS = 16  # of a block
INPUTS = 32  # of a group
VECTORS, LINES = 8, 5
EACH = np.uint32(0x01010101)  # 1 in each byte of a word


def join_fives(numbers: Array) -> Bytes:
    """Rows (n, inputs) of 0..31, whole groups of them, as bytes (n, inputs / 8 * 5)."""
    return np.concatenate([_join(part) for part in blocks_of(numbers, INPUTS)], axis=1)


def split_fives(packed: Bytes) -> Bytes:
    """The inverse of `join_fives`."""
    return np.concatenate([_split(part) for part in blocks_of(packed, 5 * INPUTS // 8)], axis=1)


def blocks_of(rows: Array, each: int) -> list[Array]:
    """Whole blocks (n, blocks, columns), then the last one if there is one, by columns a group."""
    groups = rows.shape[1] // each
    whole = groups // GROUPS * GROUPS * each
    parts = [rows[:, :whole].reshape(len(rows), -1, GROUPS * each)] if whole else []
    return parts + ([rows[:, None, whole:]] if groups % GROUPS else [])


def _join(blocks: Array) -> Bytes:
    """Blocks (n, blocks, inputs), fours of all groups interleaved, as bytes (n, ...)."""
    # Four numbers are moved and shifted as one word, in which no bit may reach the next number.
    fours = np.ascontiguousarray(blocks, np.uint8).view(np.uint32)
    fours = fours.reshape(*blocks.shape[:2], -1, VECTORS)
    a, b, c, d, e, f, g, h = np.ascontiguousarray(np.moveaxis(fours, 3, 0))
    lines = np.empty((*blocks.shape[:2], LINES, fours.shape[2]), np.uint32)
    lines[:, :, 0] = a | (f >> 2 & 7 * EACH) << 5
    lines[:, :, 1] = b | (f & 3 * EACH) << 5 | (h & 2 * EACH) << 6
    lines[:, :, 2] = c | (g >> 2 & 7 * EACH) << 5
    lines[:, :, 3] = d | (g & 3 * EACH) << 5 | (h & EACH) << 7
    lines[:, :, 4] = e | (h >> 2 & 7 * EACH) << 5
    return lines.view(np.uint8).reshape(len(blocks), -1)


def _split(blocks: Bytes) -> Bytes:
    lines = blocks.reshape(*blocks.shape[:2], LINES, -1, 4)
    low, (a, b, c, d, e) = lines & 31, np.moveaxis(lines >> 5, 2, 0)
    more = [a << 2 | b & 3, c << 2 | d & 3, e << 2 | b >> 2 << 1 | d >> 2]
    fours = np.concatenate([low, np.stack(more, axis=2)], axis=2)
    return fours.swapaxes(2, 3).reshape(len(blocks), -1)
