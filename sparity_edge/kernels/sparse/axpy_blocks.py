"""AXPY over the active rows of blocks of 32 channels of an input-major matrix: sums += x[i] row i.

The channels of a block share one header of scales, so their rows are summed as integers and scaled
once. A tile is 64 bytes of every row of a block: its sums stay in registers until they are scaled.
The CPU drops prefetches for which no line-fill buffer is free, so only those cache lines are under
way that are prefetched within its reorder window and its store queue: little else may be executed
for each. Rows of 4 KB at density 0.5, only read: 0.97 of streaming; with one store into L1 for
every four lines 0.95, with four of them 0.80 (AMD EPYC; bench/roofline.py measures the ceiling).
"""

from __future__ import annotations

from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import BF16, BITS, DTYPE, INT4, INT4K, INT6K, INT8, MINIMUM, PADDED
from sparity_edge.kernels.simd.conversions import load_bf16
from sparity_edge.kernels.simd.memory import (
    load,
    load_f32,
    load_i64,
    load_splat,
    store,
)
from sparity_edge.kernels.simd.vectors import fma, mul, splat
from sparity_edge.kernels.sparse.active_rows import (
    BLOCK_BYTES,
    CHANNELS,
    ROWS,
    SCALE,
    WHOLE,
    prefetch_bytes,
    prefetch_four,
    prefetch_place,
)
from sparity_edge.kernels.sparse.integer_axpy import (
    put_int4,
    put_int4_minima,
    put_int8,
)
from sparity_edge.kernels.sparse.kquant_axpy import add_int4k, add_int6k
from sparity_edge.kernels.sparse.sum_orders import natural8, natural16
from sparity_edge.kernels.sparse.tile_sums import sum_int4, sum_int8

# Prefetch distance in cache lines, of all rows of a block together, into L1 (rows of 4 KB in int8
# at density 0.5, of streaming: 16 lines 0.72, 32 0.76, 48 and 64 0.78, 80 0.77; prototype on an AMD
# EPYC with slow memory; bench/kernels.py measures `spvmm`).
LINES_AHEAD = 48


# --- sums -------------------------------------------------------------------------------------


@device
def bytes_ahead(active: int, inputs: int, nbytes: int) -> int:
    """The prefetch distance in a row: the fewer rows are active, the more bytes.

    Args:
        active: the active list.
        inputs: channels of the matrix.
        nbytes: of a row.
    """
    rows = max(1, CHANNELS * load_i64(active) // inputs)
    return min(nbytes, max(1, (LINES_AHEAD + rows // 2) // rows) * 64)


# Floats are added one after the other: channels that are zero then change nothing, on the list or
# off it (two chains in place of one would be no faster where rows come from memory).
@device
def _add_bf16(rows: int, count: int, place: int, fetch: int, values: int, sums: int) -> None:
    for half in range(place, place + 64, 32):
        v, x = load(sums), values
        for row in range(rows, rows + 8 * count, 32):
            a, b = load_i64(row), load_i64(row + 8)
            c, d = load_i64(row + 16), load_i64(row + 24)
            prefetch_four(a + fetch, b + fetch, c + fetch, d + fetch)
            v = fma(load_splat(x), load_bf16(a + half), v)
            v = fma(load_splat(x + 4), load_bf16(b + half), v)
            v = fma(load_splat(x + 8), load_bf16(c + half), v)
            v, x = fma(load_splat(x + 12), load_bf16(d + half), v), x + 16
        store(sums, v)
        sums += 64


@device
def _add_f32(rows: int, count: int, place: int, fetch: int, values: int, sums: int) -> None:
    v, x = load(sums), values
    for row in range(rows, rows + 8 * count, 32):
        a, b, c, d = load_i64(row), load_i64(row + 8), load_i64(row + 16), load_i64(row + 24)
        prefetch_four(a + fetch, b + fetch, c + fetch, d + fetch)
        v = fma(load_splat(x), load(a + place), v)
        v = fma(load_splat(x + 4), load(b + place), v)
        v = fma(load_splat(x + 8), load(c + place), v)
        v, x = fma(load_splat(x + 12), load(d + place), v), x + 16
    store(sums, v)


@device
def _add_floats(
    matrix: int, block: int, rows: int, following: int, ahead: int, values: int, nbytes: int,
    sums: int,
) -> None:  # fmt: skip
    count, others = load_i64(block + ROWS), load_i64(block + BLOCK_BYTES + ROWS)
    for place in range(0, nbytes, 64):
        fetch = prefetch_place(following, others, place, ahead, nbytes)
        if load_i64(matrix + DTYPE) == BF16:
            _add_bf16(rows, count, place, fetch, values, sums + 2 * place)
        else:
            _add_f32(rows, count, place, fetch, values, sums + place)


@device
def _add_int8(
    block: int, rows: int, following: int, ahead: int, digits: int, first: int, nbytes: int,
    sums: int,
) -> None:  # fmt: skip
    header, other = load_i64(block) + 2 * first, load_i64(block + BLOCK_BYTES) + 2 * first
    count, others = load_i64(block + ROWS), load_i64(block + BLOCK_BYTES + ROWS)
    scale, whole = splat(load_f32(block + SCALE)), load_f32(block + WHOLE)
    for place in range(0, nbytes, 64):
        fetch = prefetch_place(following, others, place, ahead, nbytes)
        prefetch_bytes(other + 2 * place, 128)
        tile = sum_int8(rows, count, place, fetch, digits, whole)
        put_int8(tile, header + 2 * place, sums + 4 * place, scale)


@device
def _add_int4(
    matrix: int, block: int, rows: int, following: int, ahead: int, digits: int, first: int,
    nbytes: int, sums: int,
) -> None:  # fmt: skip
    header, other = load_i64(block) + 2 * first, load_i64(block + BLOCK_BYTES) + 2 * first
    count, others = load_i64(block + ROWS), load_i64(block + BLOCK_BYTES + ROWS)
    scale, whole = splat(load_f32(block + SCALE)), load_f32(block + WHOLE)
    minima = 2 * load_i64(matrix + PADDED) if load_i64(matrix + MINIMUM) != 0 else 0
    offset, total = 0.0 if minima != 0 else whole, mul(scale, splat(whole))
    for place in range(0, nbytes, 64):
        fetch = prefetch_place(following, others, place, ahead, nbytes)
        prefetch_bytes(other + 4 * place, 256)
        tile = sum_int4(rows, count, place, fetch, digits, offset)
        scales, to = header + 4 * place, sums + 8 * place
        if minima != 0:
            prefetch_bytes(other + minima + 4 * place, 256)
            put_int4_minima(tile, scales, scales + minima, to, scale, total)
        else:
            put_int4(tile, scales, to, scale)


@device
def add_block(
    matrix: int, block: int, rows: int, following: int, ahead: int, digits: int, first: int,
    nbytes: int, sums: int,
) -> None:  # fmt: skip
    """sums += x[i] * row i over the rows of a block.

    Args:
        matrix: the descriptor of the matrix.
        block: the entry of the block, which that of the next block follows (`active_rows`).
        rows: the table of addresses of its rows.
        following: the table of the next block's rows, which are prefetched at the end.
        ahead: the prefetch distance in a row, in bytes.
        digits: the activations: digits, or float32 where the matrix is f32 or bf16.
        first: the column where rows begin.
        nbytes: of every row.
        sums: the address of float32, in the order of tiles (`order_sums`).
    """
    dtype = load_i64(matrix + DTYPE)
    if dtype == INT8:
        _add_int8(block, rows, following, ahead, digits, first, nbytes, sums)
    elif dtype == INT4:
        _add_int4(matrix, block, rows, following, ahead, digits, first, nbytes, sums)
    elif dtype == INT4K:
        add_int4k(matrix, block, rows, following, ahead, digits, first, nbytes, sums)
    elif dtype == INT6K:
        add_int6k(matrix, block, rows, following, ahead, digits, first, nbytes, sums)
    else:
        _add_floats(matrix, block, rows, following, ahead, digits, nbytes, sums)


@device
def clear(sums: int, columns: int) -> None:
    """Set `columns` float32 at `sums`, a multiple of 16, to zero."""
    for c in range(0, columns, 16):
        store(sums + 4 * c, splat(0.0))


@device
def order_sums(matrix: int, sums: int, columns: int) -> None:
    """Put `columns` sums into the order of columns, once all blocks are added."""
    dtype = load_i64(matrix + DTYPE)
    if dtype == INT8:
        for place in range(0, 4 * columns, 256):
            natural8(sums + place)
    elif dtype == INT4:
        for place in range(0, 4 * columns, 512):
            natural16(sums + place)


@device
def bytes_of(matrix: int, columns: int) -> int:
    """Bytes that the numbers of `columns` columns take in a row."""
    return columns * load_i64(matrix + BITS) // 8


@device
def scale_bytes(matrix: int, columns: int) -> int:
    """Bytes that the scales of `columns` columns take in the header of a panel, without minima.

    Of int4k, whose minima stand between them, with minima.
    """
    dtype = load_i64(matrix + DTYPE)
    if dtype <= BF16:
        return 0
    if dtype == INT4K:
        return columns // 2 * 3
    return columns if dtype == INT6K else 2 * columns
