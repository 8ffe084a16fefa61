"""Sixteen columns of an input-major K-quant (int4k, int6k): scales, minima and numbers.

For products of many tokens, which unpack a panel once for all of them; decoding sums whole tiles
(`sparse/kquant_axpy.py`). `simd/kquant_columns.py` draws where columns stand.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import (
    DATA,
    DTYPE,
    FACTOR_BYTES,
    FACTORS_AT,
    GROUP,
    INT4K,
    PADDED,
    PANEL_BYTES,
)
from sparity_edge.kernels.simd.kquant_columns import (
    interleave_kquant_nibbles,
    interleave_sixes,
    interleave_top_sixes,
    load_least,
    load_low_sixes,
    load_scale_bytes,
    sixteen_nibbles,
    sixteen_sixes,
    sixteen_top_sixes,
)
from sparity_edge.kernels.simd.memory import load_i64
from sparity_edge.kernels.simd.vectors import mul, sub

SUPERBLOCK = 256


@device
def factors_of(matrix: int, header: int) -> int:
    """The address of what the scales at `header`, those of a panel, are multiples of."""
    data = load_i64(matrix + DATA)
    panel = (header - data) // load_i64(matrix + PANEL_BYTES)
    superblock = panel * load_i64(matrix + GROUP) // SUPERBLOCK
    return data + load_i64(matrix + FACTORS_AT) + superblock * load_i64(matrix + FACTOR_BYTES)


@device
def scales_of(matrix: int, panel: int, column: int) -> Any:
    """The scales of columns column..column+15, float32.

    Args:
        matrix: the descriptor.
        panel: the address of the panel.
        column: a multiple of 16.
    """
    factors = factors_of(matrix, panel) + 2 * column
    if load_i64(matrix + DTYPE) == INT4K:
        return load_low_sixes(panel + column // 128 * 192 + column % 128, factors)
    return load_scale_bytes(panel + column, factors)


@device
def least_of(matrix: int, panel: int, column: int) -> Any:
    """The minima of sixteen columns of int4k, which are taken off, as `scales_of` gives scales."""
    factors = factors_of(matrix, panel) + 2 * (load_i64(matrix + PADDED) + column)
    tile = panel + column // 128 * 192
    shift = column % 128 // 64 * 4
    return load_least(tile + column % 128, tile + 128 + column % 64, shift, factors)


@device
def _place(row: int, column: int, columns: int, lines: int) -> int:
    """Where the first four of sixteen columns stand, in a tile of so many columns and lines."""
    inside = column % columns
    return row + column // columns * (64 * lines) + inside // 64 % lines * 64 + inside % 64 // 4


@device
def unpack_sixteen_of_kquants(matrix: int, panel: int, row: int, column: int) -> Any:
    """Columns column..column+15 of one row, as a vector of float32 (`unpack.unpack_sixteen`)."""
    scales = scales_of(matrix, panel, column)
    if load_i64(matrix + DTYPE) == INT4K:
        place, shift = _place(row, column, 128, 1), column % 128 // 64 * 4
        return sub(mul(scales, sixteen_nibbles(place, shift)), least_of(matrix, panel, column))
    place = _place(row, column, 256, 3)
    if column % 256 < 192:
        return mul(scales, sixteen_sixes(place))
    return mul(scales, sixteen_top_sixes(place))


@device
def interleave_sixteen(matrix: int, even: int, odd: int, column: int, out: int) -> None:
    """Columns column..column+15 of two rows as pairs of 16-bit integers; of int6k less 32."""
    if load_i64(matrix + DTYPE) == INT4K:
        place, shift = _place(even, column, 128, 1), column % 128 // 64 * 4
        interleave_kquant_nibbles(out, place, place + odd - even, shift)
        return
    place = _place(even, column, 256, 3)
    if column % 256 < 192:
        interleave_sixes(out, place, place + odd - even)
    else:
        interleave_top_sixes(out, place, place + odd - even)
