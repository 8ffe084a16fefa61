"""Numbers to bytes and back: one matrix (or some rows of one) in the layout the kernels read.

The geometry is `packed.layout.Layout`; this module only moves values to their places. What it
writes has no value changed: `unpack_matrix` gives back the very numbers and scales.
`sparity_edge.kernels.reference.unpack` reads these bytes as well, straight to float32: each reading
is the oracle of the other in the tests, which is why they share no code.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.numbers.five_bytes import join_fives, split_fives
from converters.numbers.kquant_bytes import read_k_quants, write_k_quants
from converters.numbers.kquant_columns import columns_of, read_k_columns, write_k_columns
from converters.numbers.low_bytes import join_iq4, split_iq4
from converters.numbers.quantize import Quantized
from sparity_edge.arrays import aligned_empty, round_up
from sparity_edge.packed.layout import UNIT, Layout, elements_in_blocks, elements_in_wide_units

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


def pack_matrix(weights: Quantized | Array, layout: Layout) -> Bytes:
    """The bytes of a matrix.

    Args:
        weights: rows of the matrix; `Quantized` in the layout's dtype and group for integers, a
            float array (outputs, inputs) for f32 and bf16.
        layout: with the shape of `weights`. An `output` matrix may be packed some rows at a time,
            each part with its own `rows_layout`: the bytes follow each other.

    Returns:
        uint8 (layout.nbytes,), 64-byte aligned, padding zero.
    """
    data = aligned_empty(layout.nbytes)
    data.fill(0)
    write_rows(data, weights, layout)
    return data


def write_rows(data: Bytes, weights: Quantized | Array, layout: Layout, start: int = 0) -> None:
    """Put some output channels of a matrix at their places.

    Args:
        data: uint8 (layout.nbytes,), zero where nothing has been written.
        weights: as for `pack_matrix`, any number of rows.
        layout: of the whole matrix.
        start: the first of the rows; a multiple of 32, of 256 for input-major K-quants.
    """
    assert start % UNIT == 0
    if isinstance(weights, Quantized):
        assert (weights.dtype, weights.group) == (layout.dtype, layout.group)
        assert (weights.minimums is not None) == layout.minimum
        assert weights.numbers.shape[1] == layout.shape[1]
        if layout.k_quant and layout.orientation == "input":
            write_k_columns(columns_of(data, layout), weights, layout, start)
            return
        if layout.k_quant:
            write_k_quants(data, weights, layout, start)
            return
        _write_scales(data, weights, layout, start)
        rows = weights.numbers
    else:
        assert not layout.quantized
        rows = _float_bits(weights, layout.dtype)
    assert rows.shape[1] == layout.shape[1]
    assert start + len(rows) <= layout.shape[0]
    _write_numbers(data, rows, layout, start)


def unpack_matrix(
    data: Bytes, layout: Layout, start: int = 0, stop: int | None = None
) -> Quantized | npt.NDArray[np.float32]:
    """Output channels start:stop of a packed matrix.

    Returns:
        `Quantized` for integers, float32 (stop - start, inputs) for f32 and bf16.
    """
    stop = layout.shape[0] if stop is None else stop
    if layout.k_quant and layout.orientation == "input":
        return read_k_columns(columns_of(data, layout), layout, start, stop)
    if layout.k_quant:
        return read_k_quants(data, layout, start, stop)
    numbers = _read_numbers(data, layout, start, stop)
    if not layout.quantized:
        return _bits_to_float(numbers, layout.dtype)
    scales, minimums = _read_scales(data, layout, start, stop)
    return Quantized(layout.dtype, layout.group, numbers, scales, minimums)


def rows_layout(layout: Layout, rows: int) -> Layout:
    """The layout of `rows` outputs of a matrix by themselves."""
    return replace(layout, shape=(rows, layout.shape[1]))


def _panels(data: Bytes, layout: Layout) -> Bytes:
    """The rows or panels (n, panel_bytes) of a matrix, which may be filled up behind them."""
    count = len(data) // layout.panel_bytes
    return data[: count * layout.panel_bytes].reshape(count, layout.panel_bytes)


def _header(data: Bytes, layout: Layout) -> Array:
    """The float16 view (rows or panels, 1 or 2, columns) of scales and minima."""
    kinds = 1 + layout.minimum
    columns = layout.groups if layout.orientation == "output" else layout.padded
    headers = _panels(data, layout)[:, layout.scales_at :]
    headers = headers[:, : kinds * columns * 2]
    return headers.view("<f2").reshape(-1, kinds, columns)


def _body(data: Bytes, layout: Layout) -> Bytes:
    """The view (panels, rows of a panel, number_bytes) of the numbers; a panel has one header."""
    panels = _panels(data, layout)[:, layout.numbers_at :]
    if layout.orientation == "output":
        return panels[:, None, : layout.number_bytes]
    rows = max(1, layout.group)
    return panels.reshape(len(panels), rows, -1)[:, :, : layout.number_bytes]


def _write_scales(data: Bytes, weights: Quantized, layout: Layout, start: int) -> None:
    header = _header(data, layout)
    stop = start + len(weights.scales)
    kinds = [weights.scales] if weights.minimums is None else [weights.scales, weights.minimums]
    for kind, values in enumerate(kinds):
        if layout.orientation == "output":
            header[start:stop, kind, : values.shape[1]] = (
                values  # a row may be filled up by a group
            )
        else:
            header[:, kind, start:stop] = values.T


def _read_scales(data: Bytes, layout: Layout, start: int, stop: int) -> tuple[Array, Array | None]:
    header = _header(data, layout)
    if layout.orientation == "output":
        scales = header[start:stop, :, : -(-layout.shape[1] // layout.group)]
    else:
        scales = header[:, :, start:stop].transpose(2, 1, 0)
    parts = [np.ascontiguousarray(scales[:, kind]) for kind in range(1 + layout.minimum)]
    return parts[0], parts[1] if layout.minimum else None


def _write_numbers(data: Bytes, rows: Array, layout: Layout, start: int) -> None:
    """Rows are (outputs start:, inputs); what is missing from the last panel stays zero."""
    body = _body(data, layout)
    if layout.orientation == "output":
        packed = _output_rows(rows, layout)
        body[start : start + len(rows), 0, : packed.shape[1]] = packed
        return
    # (inputs, bytes)
    packed = _nibbles(rows.T) if layout.dtype == "int4" else _as_bytes(rows.T)
    first = start * layout.number_bytes // layout.padded
    body = body[:, :, first : first + packed.shape[1]]
    height = body.shape[1]
    whole = len(packed) // height
    body[:whole] = packed[: whole * height].reshape(whole, height, packed.shape[1])
    if whole < len(body):
        body[whole, : len(packed) - whole * height] = packed[whole * height :]


def _read_numbers(data: Bytes, layout: Layout, start: int, stop: int) -> Array:
    """Numbers (stop - start, inputs) as int8, uint8 nibbles or the bits of floats."""
    body = _body(data, layout)
    inputs = layout.shape[1]
    if layout.orientation == "output":
        return _elements(body[start:stop, 0], layout)[:, :inputs]
    # Whole int4 units only: the first and last may hold channels that were not asked for.
    first, last = start // UNIT * UNIT, round_up(stop, UNIT)
    width = layout.number_bytes
    cut = body[:, :, first * width // layout.padded : last * width // layout.padded]
    columns = _elements(cut.reshape(-1, cut.shape[2]), layout)[
        :inputs, start - first : stop - first
    ]
    return np.ascontiguousarray(columns.T)


def _elements(rows: Bytes, layout: Layout) -> Array:
    if layout.quantized and layout.orientation == "output":
        return _out_of_blocks(rows, layout)
    if layout.dtype == "int4":
        return _unnibble(rows)
    kind = {"int8": "i1", "bf16": "<u2", "f32": "<u4"}[layout.dtype]
    return np.ascontiguousarray(rows).view(kind)


def _as_bytes(rows: Array) -> Bytes:
    return np.ascontiguousarray(rows).view(np.uint8)


def _nibbles(rows: Array) -> Bytes:
    """(n, elements) of 0..15 to bytes: byte j of a unit holds elements j (low) and j + 16."""
    count, elements = rows.shape
    padded = np.zeros((count, round_up(elements, UNIT)), dtype=np.uint8)
    padded[:, :elements] = rows
    halves = padded.reshape(count, -1, 2, UNIT // 2)
    return _join(halves[:, :, 0], halves[:, :, 1]).reshape(count, -1)


def _unnibble(rows: Bytes) -> Bytes:
    units = rows.reshape(len(rows), -1, 1, UNIT // 2)
    return np.concatenate([units & 15, units >> 4], axis=2).reshape(len(rows), -1)


def _output_rows(rows: Array, layout: Layout) -> Bytes:
    """(n, inputs) as the bytes of output-major rows: blocks of 512 elements, then the tail."""
    if not layout.quantized:
        return _as_bytes(rows)
    elements = rows
    if rows.shape[1] != layout.padded:
        elements = np.zeros((len(rows), layout.padded), dtype=rows.dtype)
        elements[:, : rows.shape[1]] = rows
    if layout.kept_group:
        return join_fives(elements) if layout.dtype == "int5" else join_iq4(elements)
    whole = elements_in_blocks(layout.padded)
    # A block is 16 groups of eight fours: the first fours of all groups, then the second ...
    fours = _as_bytes(elements[:, :whole]).view(np.uint32).reshape(len(rows), -1, 16, 8)
    fours = np.ascontiguousarray(fours.swapaxes(2, 3))
    tail = elements[:, whole:]
    if layout.dtype == "int4":
        joined = fours[:, :, :4] | fours[:, :, 4:] << 4  # of four numbers at once, all below 16
        parts = [_as_bytes(joined), _wide_nibbles(tail)]
    else:
        parts = [_as_bytes(fours), _as_bytes(tail)]
    return np.concatenate([part.reshape(len(rows), -1) for part in parts], axis=1)


def _out_of_blocks(rows: Bytes, layout: Layout) -> Array:
    """The elements (n, padded) of the numbers of output-major rows."""
    if layout.kept_group:
        rows = np.ascontiguousarray(rows)
        return split_fives(rows) if layout.dtype == "int5" else split_iq4(rows)
    elements = elements_in_blocks(layout.padded)
    whole = elements * layout.number_bytes // layout.padded
    packed, tail = np.ascontiguousarray(rows[:, :whole]), rows[:, whole:]
    if layout.dtype == "int4":
        halves = packed.reshape(len(rows), -1, 4, 16, 4)
        fours, last = np.concatenate([halves & 15, halves >> 4], axis=2), _wide_unnibble(tail)
    else:
        fours = packed.view("i1").reshape(len(rows), -1, 8, 16, 4)
        last = np.ascontiguousarray(tail).view("i1")
    return np.concatenate([fours.swapaxes(2, 3).reshape(len(rows), elements), last], axis=1)


def _wide_nibbles(rows: Array) -> Bytes:
    """(n, 64 m) of 0..15 to bytes, fours of elements of two groups interleaved.

    A unit of 128 has its first two groups of 32 in the low nibbles and its last two in the high
    ones; a unit of 64 at the end has the first halves of both its groups low, the second high.
    """
    count = len(rows)
    whole = elements_in_wide_units(rows.shape[1])
    wide = rows[:, :whole].reshape(count, -1, 2, 2, 8, 4)  # unit, nibble, group, four, element
    wide = wide.swapaxes(3, 4)
    last = rows[:, whole:].reshape(count, -1, 2, 2, 4, 4).transpose(0, 1, 3, 4, 2, 5)
    parts = [_join(units[:, :, 0], units[:, :, 1]).reshape(count, -1) for units in (wide, last)]
    return np.concatenate(parts, axis=1)


def _wide_unnibble(rows: Bytes) -> Bytes:
    count = len(rows)
    whole = elements_in_wide_units(2 * rows.shape[1]) // 2
    wide = rows[:, :whole].reshape(count, -1, 1, 8, 2, 4)
    wide = np.concatenate([wide & 15, wide >> 4], axis=2).swapaxes(3, 4)
    last = rows[:, whole:].reshape(count, -1, 1, 4, 2, 4)
    last = np.concatenate([last & 15, last >> 4], axis=2).transpose(0, 1, 4, 2, 3, 5)
    return np.concatenate([wide.reshape(count, -1), last.reshape(count, -1)], axis=1)


def _join(low: Bytes, high: Bytes) -> Bytes:
    joined: Bytes = low | np.left_shift(high, np.uint8(4))
    return joined


def _float_bits(weights: Array, dtype: str) -> Array:
    """The bits to store: float32, or its upper half rounded to nearest even for bf16."""
    bits = np.ascontiguousarray(weights, dtype="<f4").view("<u4")
    if dtype == "f32":
        return bits
    odd = bits >> 16 & 1
    rounded: Array = (bits + (0x7FFF + odd)) >> 16
    return rounded.astype("<u2")


def _bits_to_float(bits: Array, dtype: str) -> npt.NDArray[np.float32]:
    if dtype == "bf16":
        bits = bits.astype("<u4") << 16
    return np.ascontiguousarray(bits).view("<f4")
