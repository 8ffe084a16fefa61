"""Weights of up and down to a bundle and back, some rows at a time; no value changes on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from converters.numbers.kquant_columns import (
    Columns,
    factors_of,
    read_k_columns,
    write_k_columns,
)
from converters.numbers.layout_bytes import Array, pack_matrix, rows_layout, unpack_matrix
from converters.numbers.quantize import Quantized
from sparity_edge.arrays import aligned_empty
from sparity_edge.packed.bundle import BundleLayout, PackedBundle, parts_of
from sparity_edge.packed.layout import DTYPE_BITS, Layout

Bytes = npt.NDArray[np.uint8]
# Rows of down are columns of the bundle; parts of so many begin at a whole byte, unit, line, tile.
DOWN_STEP = 256


def pack_bundle(up: Quantized | Array, down: Quantized | Array, layout: BundleLayout) -> Bytes:
    """The bytes of a bundle.

    Args:
        up: (neurons, hidden), as `pack_matrix` takes it for `layout.up`.
        down: (hidden, neurons), for `layout.down`.
        layout: of both.

    Returns:
        uint8 (layout.nbytes,), 64-byte aligned, padding zero.
    """
    data = aligned_empty(layout.nbytes)
    data.fill(0)
    write_up(data, up, layout)
    write_down(data, down, layout)
    return data


def unpack_bundle(bundle: PackedBundle) -> tuple[Any, Any]:
    """Up and down as `unpack_matrix` gives them."""
    layout = bundle.layout
    up = read_up(bundle.data, layout, 0, layout.up.shape[0])
    return up, read_down(bundle.data, layout, 0, layout.down.shape[0])


def write_up(data: Bytes, weights: Quantized | Array, layout: BundleLayout, start: int = 0) -> None:
    """Put rows of up at their places, from row `start` on; see `layout_bytes.write_rows`."""
    rows = pack_matrix(weights, rows_layout(layout.up, _count(weights)))
    parts_of(data, layout).put_up(start, rows)


def read_up(data: Bytes, layout: BundleLayout, start: int, stop: int) -> Any:
    """Rows start:stop of up as `unpack_matrix` gives them."""
    rows = parts_of(data, layout).get_up(start, stop)
    return unpack_matrix(rows, rows_layout(layout.up, stop - start))


def write_down(
    data: Bytes, weights: Quantized | Array, layout: BundleLayout, start: int = 0
) -> None:
    """Put rows of down at their places; `start` is a multiple of `DOWN_STEP`."""
    assert start % DOWN_STEP == 0
    if layout.down.k_quant:
        assert isinstance(weights, Quantized)
        write_k_columns(_columns(data, layout), weights, layout.down, start)
        return
    part = rows_layout(layout.down, _count(weights))
    scales, numbers = _cut(data, layout, start, part)
    packed = pack_matrix(weights, part).reshape(-1, part.panel_bytes)
    if part.quantized:
        scales[:] = packed[:, : part.header_bytes].reshape(scales.shape)
    numbers[:] = _numbers(packed, numbers.shape, part)


def read_down(data: Bytes, layout: BundleLayout, start: int, stop: int) -> Any:
    """Rows start:stop of down as `unpack_matrix` gives them."""
    if layout.down.k_quant:
        return read_k_columns(_columns(data, layout), layout.down, start, stop)
    first = start // DOWN_STEP * DOWN_STEP
    part = rows_layout(layout.down, stop - first)
    scales, numbers = _cut(data, layout, first, part)
    packed = np.zeros((part.nbytes // part.panel_bytes, part.panel_bytes), dtype=np.uint8)
    if part.quantized:
        packed[:, : part.header_bytes] = scales.reshape(len(packed), -1)
    _numbers(packed, numbers.shape, part)[:] = numbers
    return unpack_matrix(packed.reshape(-1), part, start - first)


def _columns(data: Bytes, layout: BundleLayout) -> Columns:
    """The down half, which is a K-quant."""
    parts, down = parts_of(data, layout), layout.down
    rows = parts.down[:, :, : down.number_bytes]
    return Columns(parts.header, rows, factors_of(parts.factors, down))


def _numbers(packed: Bytes, shape: tuple[int, ...], part: Layout) -> Bytes:
    """The view (panels, group, bytes) of the numbers of a packed matrix."""
    rows = packed[:, part.header_bytes :].reshape(*shape[:2], part.row_bytes)
    return rows[:, :, : part.number_bytes]


def _count(weights: Quantized | Array) -> int:
    return len(weights.numbers if isinstance(weights, Quantized) else weights)


def _cut(data: Bytes, layout: BundleLayout, start: int, part: Layout) -> tuple[Bytes, Bytes]:
    """Where scales (panels, kinds, bytes) and numbers (panels, group, bytes) of some rows stand.

    Its padding is that of the whole, or ends before it does.
    """
    parts = parts_of(data, layout)
    kinds = 1 + part.minimum
    scales = parts.header[:, : kinds * layout.down.padded * 2]
    scales = scales.reshape(layout.panels, kinds, -1)[:, :, 2 * start :][:, :, : 2 * part.padded]
    first = start * DTYPE_BITS[part.dtype] // 8
    return scales, parts.down[:, :, first : first + part.number_bytes]
