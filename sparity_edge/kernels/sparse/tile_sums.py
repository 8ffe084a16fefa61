"""Sums of a tile: 64 bytes of every row of a block, in int4k and int6k three lines of 192.

All rows are gone through once where registers hold the sums of 64 bytes, else once for each half
of them (`integer_axpy.WIDTH`). The first time prefetches what the caller wants next.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.simd.ir import LANES
from sparity_edge.kernels.simd.memory import load_i64
from sparity_edge.kernels.sparse.active_rows import prefetch_four
from sparity_edge.kernels.sparse.integer_axpy import (
    WIDTH,
    add_int4,
    add_int8,
    start_int4,
    start_int8,
    tile_of_bytes,
    tile_of_nibbles,
)
from sparity_edge.kernels.sparse.kquant_sums import add_high_sixes, add_low_sixes, start_int6k


@inlined
def _part(
    start: Any, add: Any, lines: int, rows: int, count: int, place: int, fetch: int, other: int,
    digits: int, whole: float,
) -> Any:  # fmt: skip
    """Sums of WIDTH lanes; `lines` of the lines at `fetch` and at `other` are prefetched."""
    sums = start(whole)
    for _ in range(0, count, 4):
        a, b, c, d = load_i64(rows), load_i64(rows + 8), load_i64(rows + 16), load_i64(rows + 24)
        if lines > 0:
            prefetch_four(a + fetch, b + fetch, c + fetch, d + fetch)
        if lines > 1:
            prefetch_four(a + other, b + other, c + other, d + other)
        sums = add(sums, a + place, b + place, c + place, d + place, digits)
        rows, digits = rows + 32, digits + 8
    return sums


@inlined
def _tile(
    start: Any, add: Any, tile: Any, lines: int, rows: int, count: int, place: int, fetch: int,
    other: int, digits: int, whole: float,
) -> Any:  # fmt: skip
    left = _part(start, add, lines, rows, count, place, fetch, other, digits, whole)
    if WIDTH == LANES:
        return tile(left, left)
    half = place + 4 * WIDTH
    return tile(left, _part(start, add, 0, rows, count, half, fetch, other, digits, whole))


@device
def sum_int8(rows: int, count: int, place: int, fetch: int, digits: int, whole: float) -> Any:
    """64 bytes at `place` of `count` rows times their activations; prefetches those at `fetch`."""
    return _tile(
        start_int8, add_int8, tile_of_bytes, 1, rows, count, place, fetch, fetch, digits, whole
    )


@device
def sum_int4(rows: int, count: int, place: int, fetch: int, digits: int, whole: float) -> Any:
    """128 columns of 64 bytes at `place`, as `sum_int8`; of int4k as well."""
    return _tile(
        start_int4, add_int4, tile_of_nibbles, 1, rows, count, place, fetch, fetch, digits, whole
    )


@device
def sum_low_sixes(
    rows: int, count: int, place: int, fetch: int, other: int, digits: int, whole: float
) -> Any:
    """The first 128 columns of int6k at `place`; prefetches the lines at `fetch` and `other`."""
    return _tile(
        start_int6k, add_low_sixes, tile_of_nibbles, 2, rows, count, place, fetch, other, digits,
        whole,
    )  # fmt: skip


@device
def sum_high_sixes(rows: int, count: int, place: int, fetch: int, digits: int, whole: float) -> Any:
    """The other 128 columns of the tile of int6k at `place`; prefetches the lines at `fetch`."""
    return _tile(
        start_int6k, add_high_sixes, tile_of_nibbles, 1, rows, count, place, fetch, fetch, digits,
        whole,
    )  # fmt: skip
