"""AXPY over the active rows of a block of input-major K-quants (int4k, int6k), as `axpy_blocks`.

A tile is one line of every row in int4k, and three in int6k, whose columns are summed in two
passes: sixteen sums are what registers hold. The scales of a block head its panel; what they are
multiples of stands behind all panels and is the same for the blocks of 256 channels, so that it
mostly comes from L1.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.decode.kquant_columns import factors_of
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import PADDED
from sparity_edge.kernels.simd.memory import load_f32, load_i64
from sparity_edge.kernels.simd.vectors import mul, splat
from sparity_edge.kernels.sparse.active_rows import (
    BLOCK_BYTES,
    ROWS,
    SCALE,
    WHOLE,
    prefetch_bytes,
    prefetch_four,
    prefetch_place,
)
from sparity_edge.kernels.sparse.integer_axpy import add_int4, start_int4
from sparity_edge.kernels.sparse.kquant_sums import (
    add_high_sixes,
    add_low_sixes,
    put_int4k,
    put_int6k,
    start_int6k,
)

FOURS_TILE, SIXES_TILE = 192, 256  # bytes of the scales of a tile


@device
def _sum_fours(rows: int, count: int, place: int, fetch: int, digits: int) -> Any:
    """64 bytes at `place` of `count` rows times their activations; prefetches those at `fetch`."""
    sums = start_int4(0.0)
    for _ in range(0, count, 4):
        a, b, c, d = load_i64(rows), load_i64(rows + 8), load_i64(rows + 16), load_i64(rows + 24)
        prefetch_four(a + fetch, b + fetch, c + fetch, d + fetch)
        sums = add_int4(sums, a + place, b + place, c + place, d + place, digits)
        rows, digits = rows + 32, digits + 8
    return sums


@device
def _sum_low_sixes(
    rows: int, count: int, place: int, fetch: int, other: int, digits: int, whole: float
) -> Any:
    """The first 128 columns at `place`; prefetches the lines at `fetch` and at `other`."""
    sums = start_int6k(whole)
    for _ in range(0, count, 4):
        a, b, c, d = load_i64(rows), load_i64(rows + 8), load_i64(rows + 16), load_i64(rows + 24)
        prefetch_four(a + fetch, b + fetch, c + fetch, d + fetch)
        prefetch_four(a + other, b + other, c + other, d + other)
        sums = add_low_sixes(sums, a + place, b + place, c + place, d + place, digits)
        rows, digits = rows + 32, digits + 8
    return sums


@device
def _sum_high_sixes(
    rows: int, count: int, place: int, fetch: int, digits: int, whole: float
) -> Any:
    """The other 128 columns of the tile at `place`."""
    sums = start_int6k(whole)
    for _ in range(0, count, 4):
        a, b, c, d = load_i64(rows), load_i64(rows + 8), load_i64(rows + 16), load_i64(rows + 24)
        prefetch_four(a + fetch, b + fetch, c + fetch, d + fetch)
        sums = add_high_sixes(sums, a + place, b + place, c + place, d + place, digits)
        rows, digits = rows + 32, digits + 8
    return sums


@device
def add_int4k(
    matrix: int, block: int, rows: int, following: int, ahead: int, digits: int, first: int,
    nbytes: int, sums: int,
) -> None:  # fmt: skip
    """`axpy_blocks.add_block` for int4k."""
    header, next_header = load_i64(block), load_i64(block + BLOCK_BYTES)
    factors = factors_of(matrix, header) + 2 * first
    others = 2 * load_i64(matrix + PADDED)
    header, next_header = header + first // 2 * 3, next_header + first // 2 * 3
    count, next_count = load_i64(block + ROWS), load_i64(block + BLOCK_BYTES + ROWS)
    scale, whole = splat(load_f32(block + SCALE)), load_f32(block + WHOLE)
    total = mul(scale, splat(whole))
    for place in range(0, nbytes, 64):
        fetch = prefetch_place(following, next_count, place, ahead, nbytes)
        prefetch_bytes(next_header + 3 * place, FOURS_TILE)
        tile = _sum_fours(rows, count, place, fetch, digits)
        own = factors + 4 * place
        put_int4k(tile, header + 3 * place, own, own + others, sums + 8 * place, scale, total)


@device
def add_int6k(
    matrix: int, block: int, rows: int, following: int, ahead: int, digits: int, first: int,
    nbytes: int, sums: int,
) -> None:  # fmt: skip
    """`axpy_blocks.add_block` for int6k."""
    header, next_header = load_i64(block), load_i64(block + BLOCK_BYTES)
    factors = factors_of(matrix, header) + 2 * first
    header, next_header = header + first, next_header + first
    count, next_count = load_i64(block + ROWS), load_i64(block + BLOCK_BYTES + ROWS)
    scale, whole = splat(load_f32(block + SCALE)), load_f32(block + WHOLE)
    for place in range(0, nbytes, 192):
        fetch = prefetch_place(following, next_count, place, ahead, nbytes)
        other = prefetch_place(following, next_count, place + 64, ahead, nbytes)
        prefetch_bytes(next_header, SIXES_TILE)
        tile = _sum_low_sixes(rows, count, place, fetch, other, digits, whole)
        put_int6k(tile, header, factors, sums, scale)
        fetch = prefetch_place(following, next_count, place + 128, ahead, nbytes)
        tile = _sum_high_sixes(rows, count, place, fetch, digits, whole)
        put_int6k(tile, header + 128, factors + 256, sums + 512, scale)
        header, next_header = header + SIXES_TILE, next_header + SIXES_TILE
        factors, sums = factors + 512, sums + 1024
