"""Rows of a screen to bytes: floats to four bits, sixteen rows side by side."""

from __future__ import annotations

import numpy as np

from converters.numbers.quantize import Array
from sparity_edge.arrays import Bytes
from sparity_edge.packed.lane_rows import GROUP, TOGETHER, ZERO, LaneLayout

# The largest number of a group, of either sign, becomes -8 under one of these; more clips it.
STEPS = (-8.0, -7.1)


def pack_lanes(numbers: Array, scales: Array, layout: LaneLayout) -> Bytes:
    """The bytes of whole blocks.

    Args:
        numbers, scales: of `quantized_lanes`; n rows, all of one or more blocks, or less at the
            end of the matrix.
        layout: of the whole matrix.
    """
    count, inputs = len(numbers), layout.inputs
    blocks = -(-count // TOGETHER)
    filled = np.zeros((blocks * TOGETHER, inputs), dtype=np.uint8)
    filled[:count] = numbers.reshape(count, inputs)
    # block, row, group, vector, nibble, input -> block, group, vector, nibble, row, input
    fours = filled.reshape(blocks, TOGETHER, -1, 8, 2, 4).transpose(0, 2, 3, 4, 1, 5)
    wide = np.zeros((blocks * TOGETHER, layout.groups), dtype=np.float16)
    wide[:count] = scales
    data = np.zeros((blocks, layout.block_bytes), dtype=np.uint8)
    data[:, : layout.number_bytes] = (fours[:, :, :, 0] | fours[:, :, :, 1] << 4).reshape(
        blocks, -1
    )
    turned = np.ascontiguousarray(wide.reshape(blocks, TOGETHER, -1).swapaxes(1, 2))
    header = turned.reshape(blocks, -1).view(np.uint8)
    data[:, layout.number_bytes :][:, : header.shape[1]] = header
    return data.reshape(-1)


def lane_values(numbers: Array, scales: Array) -> Array:
    """The values (n, inputs) that numbers and scales stand for, float32."""
    values: Array = (numbers.astype(np.float32) - ZERO) * scales.astype(np.float32)[:, :, None]
    return values.reshape(len(numbers), -1)


def quantized_lanes(rows: Array) -> tuple[Array, Array]:
    """Rows (n, inputs) as numbers of 0..15 and scales, those of the least squared error.

    Args:
        rows: float32, inputs a multiple of GROUP.

    Returns:
        (n, groups, GROUP) uint8 and (n, groups) float16.
    """
    groups = rows.reshape(len(rows), -1, GROUP)
    at = np.abs(groups).argmax(axis=2, keepdims=True)
    extreme = np.take_along_axis(groups, at, axis=2)
    best = np.zeros_like(groups)
    scales = np.zeros(extreme.shape, dtype=np.float16)
    errors = np.full(extreme.shape, np.inf, dtype=np.float32)
    for step in STEPS:
        scale = (extreme / np.float32(step)).astype(np.float16)
        wide = scale.astype(np.float32)
        inverse = np.divide(1, wide, out=np.zeros_like(wide), where=wide != 0)
        numbers = np.clip(np.rint(groups * inverse), -ZERO, ZERO - 1)
        error = np.square(numbers * wide - groups).sum(axis=2, keepdims=True)
        better = error < errors
        best, scales = np.where(better, numbers, best), np.where(better, scale, scales)
        errors = np.minimum(error, errors)
    return (best + ZERO).astype(np.uint8), scales[:, :, 0]
