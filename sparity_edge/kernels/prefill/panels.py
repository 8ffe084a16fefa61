"""Panels: weights of 32 outputs unpacked into L1, in the order in which tiles read them.

Float panels are (inputs, 32) float32 of any format (`simd/float_tiles.py` draws them); word panels
hold the integers of int8 and int4 as they are, unit by unit of 32 inputs: pairs of inputs (16, 32)
of 16 bits, 32 scales, 32 minima (`simd/int16_tiles.py`). Outputs that do not exist hold whatever;
nobody writes their sums.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.decode.dot_arguments import whole_groups
from sparity_edge.kernels.decode.unpack import row_place, unpack_sixteen
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.matrix import (
    BITS,
    DATA,
    DTYPE,
    F32,
    GROUP,
    GROUPS,
    HEADER_BYTES,
    INT8,
    MINIMUM,
    OUTPUTS,
    PADDED,
    PANEL_BYTES,
    ROW_BYTES,
    SCALES_AT,
    ZERO,
)
from sparity_edge.kernels.simd.conversions import load_f16
from sparity_edge.kernels.simd.float_tiles import PANEL, ROW
from sparity_edge.kernels.simd.int16_tiles import UNIT, W_MINIMA, W_SCALES, W_UNIT
from sparity_edge.kernels.simd.memory import load_i64, prefetch, store
from sparity_edge.kernels.simd.transposes import (
    interleave_bytes,
    interleave_nibbles,
    load_f16_column,
    transpose_block_bytes,
    transpose_block_nibbles,
    transpose_bytes,
    transpose_floats,
    transpose_last_nibbles,
    transpose_scales,
    transpose_wide_nibbles,
)


@inlined
def unpack_rows(
    matrix: int, first: int, rows: int, scratch: int, unpack: Any
) -> tuple[int, int, int]:
    """The outputs of a panel as rows of float32.

    Args:
        matrix: the descriptor of an output-major matrix.
        first: the first output.
        rows: memory for those that have to be unpacked, 32 rows of PADDED float32.
        scratch: 128 bytes.
        unpack: of a row, such as `unpack_row`.

    Returns:
        The address of the first row, the bytes to the next, and how many there are.
    """
    count = min(PANEL, load_i64(matrix + OUTPUTS) - first)
    if load_i64(matrix + DTYPE) == F32:
        stride = load_i64(matrix + ROW_BYTES)
        return row_place(matrix, first), stride, count
    stride = 4 * load_i64(matrix + PADDED)
    for index in range(count):
        unpack(matrix, first + index, rows + index * stride, scratch)
    return rows, stride, count


@device
def float_panel_of_rows(
    rows: int, stride: int, count: int, start: int, stop: int, panel: int
) -> None:
    """Inputs start..stop-1, a multiple of 16, of the rows that `unpack_rows` gave, to `panel`."""
    for half in range(0, count, 16):
        last = min(count - half, 16) - 1
        place = rows + half * stride
        for k in range(start, stop, 16):
            out = panel + ROW * (k - start) + 4 * half
            transpose_floats(out, ROW, place + 4 * k, stride, last)


@device
def float_panel_of_columns(matrix: int, first: int, start: int, stop: int, panel: int) -> None:
    """Inputs start..stop-1 of 32 outputs of an input-major matrix, to `panel`."""
    group, columns = load_i64(matrix + GROUP), min(PANEL, load_i64(matrix + PADDED) - first)
    place, row_bytes = load_i64(matrix + DATA), load_i64(matrix + ROW_BYTES)
    for k in range(start, stop):
        if group != 0 and (k == start or k % group == 0):
            place = load_i64(matrix + DATA) + k // group * load_i64(matrix + PANEL_BYTES)
        inside = k - k // group * group if group != 0 else k
        row = place + load_i64(matrix + HEADER_BYTES) + inside * row_bytes
        for c in range(0, columns, 16):
            out = panel + ROW * (k - start) + 4 * c
            store(out, unpack_sixteen(matrix, place, row, first + c))


@device
def word_panel_of_rows(matrix: int, first: int, start: int, stop: int, panel: int) -> None:
    """Units start..stop-1 of an output-major matrix of int8 or int4; `start` is a multiple of 8."""
    stride, outputs = load_i64(matrix + ROW_BYTES), load_i64(matrix + OUTPUTS)
    whole = min(whole_groups(matrix), stop)
    for half in range(0, min(PANEL, outputs - first), 16):
        row = row_place(matrix, first + half)
        numbers = row + load_i64(matrix + HEADER_BYTES)
        last = min(16, outputs - first - half) - 1
        out = panel + 4 * half
        for unit in range(start, stop):
            place = out + (unit - start) * W_UNIT
            if unit >= whole:
                _transpose_unit(matrix, numbers, stride, last, unit, place)
            elif unit % 8 == 0:
                _transpose_eight_units(matrix, numbers, stride, last, unit, place)
            if unit >= whole or load_i64(matrix + GROUP) != UNIT:
                _scales_of_unit(matrix, row, stride, last, unit, place)
            elif unit % 8 == 0:
                _scales_of_eight_units(matrix, row, stride, last, unit, place)


@device
def _scales_of_unit(matrix: int, row: int, stride: int, last: int, unit: int, out: int) -> None:
    groups, per_group = load_i64(matrix + GROUPS), load_i64(matrix + GROUP) // UNIT
    scales = row + load_i64(matrix + SCALES_AT) + 2 * (unit // per_group)
    store(out + W_SCALES, load_f16_column(scales, stride, last))
    if load_i64(matrix + MINIMUM) != 0:
        store(out + W_MINIMA, load_f16_column(scales + 2 * groups, stride, last))


@device
def _scales_of_eight_units(
    matrix: int, row: int, stride: int, last: int, unit: int, out: int
) -> None:
    """Half the groups of a block, a scale for each unit."""
    scales = row + load_i64(matrix + SCALES_AT) + 2 * unit
    transpose_scales(out + W_SCALES, scales, stride, last)
    if load_i64(matrix + MINIMUM) != 0:
        transpose_scales(out + W_MINIMA, scales + 2 * load_i64(matrix + GROUPS), stride, last)


@device
def _transpose_eight_units(
    matrix: int, numbers: int, stride: int, last: int, unit: int, out: int
) -> None:
    """Half the groups of a block of 512 inputs."""
    half = unit % 16 * 4
    if load_i64(matrix + DTYPE) == INT8:
        place = numbers + unit // 16 * 512 + half
        for four in range(8):
            transpose_block_bytes(out + 2 * ROW * four, place + 64 * four, stride, last)
        return
    place = numbers + unit // 16 * 256 + half
    zero = load_i64(matrix + ZERO)
    for four in range(4):
        transpose_block_nibbles(out + 2 * ROW * four, place + 64 * four, stride, last, zero)


@device
def _transpose_unit(matrix: int, numbers: int, stride: int, last: int, unit: int, out: int) -> None:
    """A unit in the tail of rows."""
    zero = load_i64(matrix + ZERO)
    place = numbers + unit // 4 * 64
    if load_i64(matrix + DTYPE) == INT8:
        transpose_bytes(out, numbers + UNIT * unit, stride, last)
    elif unit < load_i64(matrix + PADDED) // 128 * 4:
        transpose_wide_nibbles(out, place, stride, last, unit % 4, zero)
    else:
        transpose_last_nibbles(out, place, stride, last, unit % 4, zero)


@device
def prefetch_word_rows(matrix: int, first: int, start: int, stop: int) -> None:
    """Prefetch into L2 what `word_panel_of_rows` will read."""
    stride, outputs = load_i64(matrix + ROW_BYTES), load_i64(matrix + OUTPUTS)
    width = UNIT * load_i64(matrix + BITS) // 8  # bytes of a unit
    if start < whole_groups(matrix):  # the first half of a block brings its cache lines in
        if start % 16 != 0:
            return
        stop = (stop + 15) // 16 * 16
    row = row_place(matrix, first) + load_i64(matrix + HEADER_BYTES)
    for _ in range(first, min(first + PANEL, outputs)):
        for place in range(row + start * width, row + stop * width, 64):
            prefetch(place)
        row += stride


@device
def word_panel_of_columns(matrix: int, first: int, start: int, stop: int, panel: int) -> None:
    """Units start..stop-1 of an input-major matrix of int8 or int4."""
    stride, group = load_i64(matrix + ROW_BYTES), load_i64(matrix + GROUP)
    zero = load_i64(matrix + ZERO)
    for unit in range(start, stop):
        out, panel_of_group = panel + (unit - start) * W_UNIT, UNIT * unit // group
        place = load_i64(matrix + DATA) + panel_of_group * load_i64(matrix + PANEL_BYTES)
        for c in range(0, PANEL, 16):
            header = place + 2 * (first + c)
            store(out + W_SCALES + 4 * c, load_f16(header, 16))
            minima = header + 2 * load_i64(matrix + PADDED)
            if zero == 0:
                store(out + W_MINIMA + 4 * c, load_f16(minima, 16))
        inside = UNIT * unit - panel_of_group * group
        row = place + load_i64(matrix + HEADER_BYTES) + inside * stride
        for k in range(UNIT // 2):
            if load_i64(matrix + DTYPE) == INT8:
                interleave_bytes(out + ROW * k, row + first, row + stride + first)
            else:
                even = row + first // 2
                interleave_nibbles(out + ROW * k, even, even + stride, zero)
            row += 2 * stride
