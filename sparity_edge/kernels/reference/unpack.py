"""Unpack: the values of packed matrices in plain NumPy, whatever their layout.

`converters.numbers.layout_bytes` (and `kquant_bytes`) read the same bytes, as whole numbers with
their scales. There are two readings because each is the oracle of the other: one is written next to
what packs, this one from docs/format.md, and tests hold them against each other and both against
the gguf package. Shared code would let one mistake about a byte pass every test.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import Floats
from sparity_edge.kernels.reference.unpack_low import (
    int2k_blocks,
    int3k_blocks,
    iq4_values,
    iq4k_blocks,
)
from sparity_edge.packed.lane_rows import LaneRows
from sparity_edge.packed.layout import (
    K_QUANT_SCALES,
    SUPERBLOCK,
    ZEROS,
    Layout,
    PackedMatrix,
    elements_in_blocks,
)

Bytes = npt.NDArray[np.uint8]


def unpack(packed: PackedMatrix) -> Floats:
    """The values of a packed matrix.

    Args:
        packed: its bytes and their layout.

    Returns:
        float32 (outputs, inputs).
    """
    layout = packed.layout
    outputs, inputs = layout.shape
    if layout.orientation == "output":
        rows = packed.data[: outputs * layout.row_bytes].reshape(outputs, layout.row_bytes)
        if layout.k_quant:
            return _kquants(rows, layout)
        numbers = _numbers(rows[:, layout.numbers_at :][:, : layout.number_bytes], layout)
        headers = rows[:, layout.scales_at :][:, : layout.header_bytes]
        values = _scale(numbers, headers, layout, layout.groups) if layout.quantized else numbers
        return np.ascontiguousarray(values[:, :inputs])
    if layout.k_quant:
        return _kquant_columns(packed.data, layout)
    panels = packed.data.reshape(-1, layout.panel_bytes)
    rows = panels[:, layout.header_bytes :].reshape(-1, layout.row_bytes)
    numbers = _numbers(rows[:, : layout.number_bytes], layout)
    if not layout.quantized:
        return np.ascontiguousarray(numbers[:inputs, :outputs].T)
    # A header serves the rows of its panel: transpose so that groups run along the last axis.
    columns = numbers.reshape(len(panels), layout.group, -1).transpose(2, 0, 1)
    header = panels[:, : layout.header_bytes].copy().view(np.float16).astype(np.float32)
    scales = header.reshape(len(panels), -1, layout.padded)  # scales, then minima if there are any
    values = columns * scales[:, 0].T[..., None]
    if layout.minimum:
        values += scales[:, 1].T[..., None]
    elif layout.dtype == "int4":
        values -= 8 * scales[:, 0].T[..., None]
    return np.ascontiguousarray(values.reshape(layout.padded, -1)[:outputs, :inputs])


def unpack_lanes(rows: LaneRows) -> Floats:
    """The values of the rows of a screen, float32 (outputs, inputs)."""
    layout = rows.layout
    data = rows.data.reshape(layout.blocks, layout.block_bytes)
    packed = data[:, : layout.number_bytes].reshape(layout.blocks, layout.groups, 8, 1, 16, 4)
    nibbles = np.concatenate([packed & 15, packed >> 4], axis=3)  # (..., vector, nibble, row, four)
    header = np.ascontiguousarray(data[:, layout.number_bytes :][:, : 32 * layout.groups])
    scales = header.view(np.float16).astype(np.float32)
    values = (nibbles.astype(np.float32) - 8) * scales.reshape(
        layout.blocks, layout.groups, 1, 1, 16, 1
    )
    turned = values.transpose(0, 4, 1, 2, 3, 5).reshape(-1, layout.inputs)
    return np.ascontiguousarray(turned[: layout.outputs])


def _numbers(rows: Bytes, layout: Layout) -> Floats:
    """The numbers of packed rows as float32, before scales."""
    rows = np.ascontiguousarray(rows)
    if layout.orientation == "output" and layout.quantized:
        return _blocks(rows, layout)
    if layout.dtype == "int8":
        return rows.view(np.int8).astype(np.float32)
    if layout.dtype == "int4":
        units = rows.reshape(len(rows), -1, 1, 16)
        nibbles = np.concatenate([units & 15, units >> 4], axis=2)
        return nibbles.reshape(len(rows), -1).astype(np.float32)
    if layout.dtype == "bf16":
        return (rows.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return rows.view(np.float32)


def _blocks(rows: Bytes, layout: Layout) -> Floats:
    """The elements of rows of blocks (16 groups of 32, fours interleaved) and of their tails."""
    if layout.dtype == "int5":
        return _fives(rows, layout.padded)
    if layout.dtype == "iq4":
        return iq4_values(rows, layout.padded)
    count, elements = len(rows), elements_in_blocks(layout.padded)
    fours: npt.NDArray[Any]
    tail: npt.NDArray[Any]
    if layout.dtype == "int8":
        fours = rows[:, :elements].view(np.int8).reshape(count, elements // 512, 8, 16, 4)
        tail = rows[:, elements:].view(np.int8)
    else:
        packed = rows[:, : elements // 2].reshape(count, elements // 512, 4, 16, 4)
        fours = np.concatenate([packed & 15, packed >> 4], axis=2)
        tail = _wide_units(rows[:, elements // 2 :])
    parts = [fours.swapaxes(2, 3).reshape(count, elements), tail]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _wide_units(rows: Bytes) -> Bytes:
    """Nibbles of tails: units of 128, and perhaps a last one of 64."""
    count, width = rows.shape
    whole = width // 64 * 64
    wide = rows[:, :whole].reshape(count, whole // 64, 1, 8, 2, 4)
    wide = np.concatenate([wide & 15, wide >> 4], axis=2).swapaxes(3, 4)
    last = rows[:, whole:].reshape(count, (width - whole) // 32, 1, 4, 2, 4)
    last = np.concatenate([last & 15, last >> 4], axis=2).transpose(0, 1, 4, 2, 3, 5)
    parts = [wide.reshape(count, 2 * whole), last.reshape(count, 2 * (width - whole))]
    return np.concatenate(parts, axis=1)


def _fives(rows: Bytes, size: int) -> Floats:
    """Numbers of rows of five bits: five lines a block hold eight vectors of interleaved fours."""
    parts, place = [], 0
    for start in range(0, size, 512):
        width = min(512, size - start) // 8
        lines = rows[:, place : place + 5 * width].reshape(-1, 5, width)
        bits = np.unpackbits(lines[..., None], axis=3, bitorder="little")  # (rows, line, byte, bit)
        vectors = np.zeros((len(lines), 8, width, 5), dtype=np.uint8)
        vectors[:, :5] = bits[..., :5]
        for vector, line in ((5, 0), (6, 2), (7, 4)):
            vectors[:, vector, :, 2:] = bits[:, line, :, 5:]
        for vector, line in ((5, 1), (6, 3)):
            vectors[:, vector, :, :2] = bits[:, line, :, 5:7]
        vectors[:, 7, :, 1], vectors[:, 7, :, 0] = bits[:, 1, :, 7], bits[:, 3, :, 7]
        fours = (vectors @ (1 << np.arange(5))).reshape(len(rows), 8, -1, 4)
        parts.append(fours.swapaxes(1, 2).reshape(len(rows), -1))
        place += 5 * width
    return np.concatenate(parts, axis=1).astype(np.float32)


def _scale(numbers: Floats, headers: Bytes, layout: Layout, groups: int) -> Floats:
    """Apply the scales (and minima) of output-major rows."""
    header = np.ascontiguousarray(headers).view(np.float16).astype(np.float32)
    scales = header[:, :groups, None]
    values = numbers.reshape(len(numbers), groups, layout.group) * scales
    if layout.minimum:
        values += header[:, groups : 2 * groups, None]
    elif layout.dtype in ZEROS:
        values -= ZEROS[layout.dtype] * scales
    return values.reshape(len(numbers), -1)


def _kquants(rows: Bytes, layout: Layout) -> Floats:
    """The values of rows of K-quants: blocks of 16 groups, and half a block at the end."""
    size = layout.padded // 512 * 512
    numbers, scales = rows[:, : layout.number_bytes], rows[:, layout.number_bytes :]
    parts = []
    for start, stop, groups in ((0, size, 16), (size, layout.padded, 8)):
        blocks = (stop - start) // (32 * groups)
        if blocks:
            first, last = (at * layout.number_bytes // layout.padded for at in (start, stop))
            packed = numbers[:, first:last].reshape(len(rows), blocks, -1)
            first, last = (at // SUPERBLOCK * K_QUANT_SCALES[layout.dtype] for at in (start, stop))
            of_part = scales[:, first:last].reshape(len(rows), blocks, -1)
            parts.append(_BLOCKS[layout.dtype](packed, of_part, groups).reshape(len(rows), -1))
    return np.concatenate(parts, axis=1)


def _fours(vectors: Bytes, groups: int) -> Floats:
    """(rows, blocks, groups, half of a group, its 16 inputs) of vectors of interleaved fours.

    Of 16 groups the vectors of first halves come first, of 8 groups they stand side by side.
    """
    shape = (2, 4, 16, 4) if groups == 16 else (4, 2, 8, 4)
    order = (0, 1, 4, 2, 3, 5) if groups == 16 else (0, 1, 4, 3, 2, 5)
    groups_of = vectors.reshape(*vectors.shape[:2], *shape).transpose(order)
    return groups_of.reshape(*vectors.shape[:2], groups, 2, 16).astype(np.float32)


def _factors(scales: Bytes, count: int) -> Floats:
    """The last `count` float16 of each block."""
    return scales[:, :, -2 * count :].copy().view(np.float16).astype(np.float32)


def _int4k_blocks(packed: Bytes, scales: Bytes, groups: int) -> Floats:
    """(rows, blocks, groups, 2, 16) of blocks of int4k and the bytes of their scales."""
    packed = packed.reshape(*packed.shape[:2], -1, 64)
    numbers = _fours(np.stack([packed & 15, packed >> 4], axis=3), groups)
    return _scale_by_sixes(numbers, scales, groups)


def _int5k_blocks(packed: Bytes, scales: Bytes, groups: int) -> Floats:
    """(rows, blocks, groups, 2, 16) of blocks of int5k and the bytes of their scales."""
    numbers = _fives(packed.reshape(-1, packed.shape[2]), 32 * groups)
    return _scale_by_sixes(numbers.reshape(*packed.shape[:2], groups, 2, 16), scales, groups)


def _scale_by_sixes(numbers: Floats, scales: Bytes, groups: int) -> Floats:
    """Apply scales and minima of six bits, which are multiples of float16."""
    bits = np.unpackbits(scales[:, :, : groups * 3 // 2], axis=2, bitorder="little")
    sixes = bits.reshape(*bits.shape[:2], groups, 2, 6) @ (1 << np.arange(6))
    factors = _factors(scales, groups // 4).reshape(*bits.shape[:2], -1, 1, 2)
    scaled = factors * sixes.reshape(*bits.shape[:2], groups // 8, 8, 2).astype(np.float32)
    scaled = scaled.reshape(*bits.shape[:2], groups, 1, 1, 2)
    return scaled[..., 0] * numbers - scaled[..., 1]


def _int6k_blocks(packed: Bytes, scales: Bytes, groups: int) -> Floats:
    """(rows, blocks, groups, 2, 16) of blocks of int6k and the bytes of their scales."""
    packed = packed.reshape(*packed.shape[:2], -1, 64)
    vectors = _sixes_of(packed.reshape(*packed.shape[:2], -1, 3, 64))
    of_halves = scales[:, :, : 2 * groups].copy().view(np.int8).astype(np.float32)
    of_halves = of_halves.reshape(*packed.shape[:2], 2, groups).swapaxes(2, 3)
    factors = np.repeat(_factors(scales, groups // 8), 8, axis=2)
    return (factors[..., None] * of_halves)[..., None] * (_fours(vectors, groups) - 32)


def _kquant_columns(data: Bytes, layout: Layout) -> Floats:
    """The values of an input-major matrix of K-quants, (outputs, inputs)."""
    (outputs, inputs), columns = layout.shape, layout.padded
    panels = data[: layout.groups * layout.panel_bytes].reshape(layout.groups, -1)
    factors = data[panels.size :].view(np.float16).astype(np.float32)
    factors = factors.reshape(inputs // SUPERBLOCK, 1 + layout.minimum, columns)
    factors = np.repeat(factors, SUPERBLOCK // layout.group, axis=0)  # (panels, 1 or 2, columns)
    header = panels[:, : layout.header_bytes]
    rows = panels[:, layout.header_bytes :].reshape(len(panels), layout.group, -1)
    rows = rows[:, :, : layout.number_bytes]
    if layout.dtype == "int6k":
        scales = factors[:, 0] * header.view(np.int8).astype(np.float32)
        numbers = _column_order(_sixes_of(rows.reshape(-1, columns // 256, 3, 64)))
        values = scales[:, None] * (numbers.reshape(len(panels), layout.group, columns) - 32)
    else:
        tiles = header.reshape(len(panels), -1, 192)
        low, high = tiles[:, :, :128], tiles[:, :, 128:]
        least = (low >> 6) + 4 * np.concatenate([high & 15, high >> 4], axis=2)
        scales = factors[:, 0] * (low & 63).reshape(len(panels), columns)
        minima = factors[:, 1] * least.reshape(len(panels), columns)
        packed = rows.reshape(-1, columns // 128, 64)
        numbers = _column_order(np.stack([packed & 15, packed >> 4], axis=2))
        values = scales[:, None] * numbers.reshape(len(panels), layout.group, columns)
        values -= minima[:, None]
    return np.ascontiguousarray(values.reshape(inputs, columns)[:, :outputs].T)


def _sixes_of(threes: Bytes) -> Bytes:
    """(..., 4, 64) of three lines of six bits each, with those of a fourth on top."""
    top = threes >> 6
    last = top[..., 0, :] | top[..., 1, :] << 2 | top[..., 2, :] << 4
    return np.concatenate([threes & 63, last[..., None, :]], axis=-2)


def _column_order(lines: Bytes) -> Floats:
    """Lines of 64 numbers, of which byte 16 q + 4 k + i is column 16 k + 4 q + i, in order."""
    shape = lines.shape
    return lines.reshape(*shape[:-1], 4, 4, 4).swapaxes(-3, -2).reshape(shape).astype(np.float32)


# By K-quant: (numbers of blocks, their scales, groups) -> (rows, blocks, groups, 2, 16).
_BLOCKS = {
    "int2k": int2k_blocks,
    "int3k": int3k_blocks,
    "int4k": _int4k_blocks,
    "int5k": _int5k_blocks,
    "int6k": _int6k_blocks,
    "iq4k": iq4k_blocks,
}
