"""AXPY over the active rows of a block of input-major K-quants (int4k, int6k), as `axpy_blocks`.

A tile is one line of every row in int4k, and three in int6k, whose columns are summed in two
passes: sixteen sums are what registers hold. The scales of a block head its panel; their factors,
what they are multiples of, stand behind all panels and are the same for the blocks of 256 channels,
so that they mostly come from L1. They are prefetched where the next block has others: bundles at
density 0.3 and 0.5 take 0.96 to 1.0 of the time, `spvmm` at 0.5 0.98 (rows of 1536, Zen 5;
bench/kernels.py). Scaling once for 256 channels would save another 1 to 3 % at the most.
"""

from __future__ import annotations

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
    prefetch_place,
)
from sparity_edge.kernels.sparse.kquant_sums import put_int4k, put_int6k
from sparity_edge.kernels.sparse.tile_sums import sum_high_sixes, sum_int4, sum_low_sixes

FOURS_TILE, SIXES_TILE = 192, 256  # bytes of the scales of a tile
FOURS_FACTORS, SIXES_FACTORS = 256, 512  # and of their factors (of minima, as many again)


@device
def add_int4k(
    matrix: int, block: int, rows: int, following: int, ahead: int, digits: int, first: int,
    nbytes: int, sums: int,
) -> None:  # fmt: skip
    """`axpy_blocks.add_block` for int4k."""
    header, next_header = load_i64(block), load_i64(block + BLOCK_BYTES)
    factors = factors_of(matrix, header) + 2 * first
    step = factors_of(matrix, next_header) + 2 * first - factors
    others = 2 * load_i64(matrix + PADDED)
    header, next_header = header + first // 2 * 3, next_header + first // 2 * 3
    count, next_count = load_i64(block + ROWS), load_i64(block + BLOCK_BYTES + ROWS)
    scale, whole = splat(load_f32(block + SCALE)), load_f32(block + WHOLE)
    total = mul(scale, splat(whole))
    for place in range(0, nbytes, 64):
        fetch = prefetch_place(following, next_count, place, ahead, nbytes)
        prefetch_bytes(next_header + 3 * place, FOURS_TILE)
        own = factors + 4 * place
        if step != 0:
            prefetch_bytes(own + step, FOURS_FACTORS)
            prefetch_bytes(own + step + others, FOURS_FACTORS)
        tile = sum_int4(rows, count, place, fetch, digits, 0.0)
        put_int4k(tile, header + 3 * place, own, own + others, sums + 8 * place, scale, total)


@device
def add_int6k(
    matrix: int, block: int, rows: int, following: int, ahead: int, digits: int, first: int,
    nbytes: int, sums: int,
) -> None:  # fmt: skip
    """`axpy_blocks.add_block` for int6k."""
    header, next_header = load_i64(block), load_i64(block + BLOCK_BYTES)
    factors = factors_of(matrix, header) + 2 * first
    step = factors_of(matrix, next_header) + 2 * first - factors
    header, next_header = header + first, next_header + first
    count, next_count = load_i64(block + ROWS), load_i64(block + BLOCK_BYTES + ROWS)
    scale, whole = splat(load_f32(block + SCALE)), load_f32(block + WHOLE)
    for place in range(0, nbytes, 192):
        fetch = prefetch_place(following, next_count, place, ahead, nbytes)
        other = prefetch_place(following, next_count, place + 64, ahead, nbytes)
        prefetch_bytes(next_header, SIXES_TILE)
        if step != 0:
            prefetch_bytes(factors + step, SIXES_FACTORS)
        tile = sum_low_sixes(rows, count, place, fetch, other, digits, whole)
        put_int6k(tile, header, factors, sums, scale)
        fetch = prefetch_place(following, next_count, place + 128, ahead, nbytes)
        tile = sum_high_sixes(rows, count, place, fetch, digits, whole)
        put_int6k(tile, header + 128, factors + 256, sums + 512, scale)
        header, next_header = header + SIXES_TILE, next_header + SIXES_TILE
        factors, sums = factors + 512, sums + 1024
