"""Blocks: the active rows among 32 neighbouring channels of an input-major matrix, added up.

The channels of a block share one header of scales, so their rows are summed as integers and scaled
once. A tile is 64 bytes of every row of a block: its sums stay in registers until they are scaled.
The CPU drops prefetches for which it has no room, so that only those lines are on their way that
are asked for within its window of instructions and its queue of stores: few of either may go by for
a line. Rows of 4 KB at density 0.5, only read: 0.97 of streaming; with one store into L1 for every
four lines 0.95, with four of them 0.80.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.active_list import FIRST
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import BF16, BITS, DTYPE, INT4, INT8, MINIMUM, PADDED
from sparity_edge.kernels.simd.conversions import load_bf16
from sparity_edge.kernels.simd.integer_axpy import (
    add_int4,
    add_int8,
    natural8,
    natural16,
    put_int4,
    put_int4_minima,
    put_int8,
    start_int4,
    start_int8,
    store_fours,
)
from sparity_edge.kernels.simd.memory import (
    load,
    load_f32,
    load_i32,
    load_i64,
    load_splat,
    store,
    store_i64,
)
from sparity_edge.kernels.simd.prefetch import prefetch, prefetch_near
from sparity_edge.kernels.simd.vectors import (
    add,
    fma,
    largest,
    maximum,
    mul,
    rounded,
    splat,
    sub,
    total,
)

SHIFT = 5  # the logarithm of the channels in a block
CHANNELS = 1 << SHIFT
MOST = 127 * 256  # so that the high digit of an activation fits into a signed byte
LEAST = 1e-30  # smaller activations count as zero: their inverse is not finite
# Lines asked for ahead, of all rows of a block together, into L1 (rows of 4 KB in int8 at density
# 0.5, of streaming: 16 lines 0.72, 32 0.76, 48 and 64 0.78, 80 0.77; prototype, slow memory).
LINES_AHEAD = 48
# An entry of a table of blocks: header, rows (a multiple of four), scale and total of activations.
HEADER, ROWS, SCALE, WHOLE, BLOCK_BYTES = 0, 8, 16, 20, 32
# Scratch. The first part is that of the dot products (vmm).
VALUES, FIRST_FREE = 1024, 1152


# --- the list ---------------------------------------------------------------------------------


@device
def channel(active: int, position: int) -> int:
    """The channel at a position of an active list."""
    return load_i32(active + FIRST + 4 * position)


@device
def boundary(active: int, part: int, parts: int) -> int:
    """Where part `part` of `parts` begins on the list; parts do not cut blocks."""
    count = load_i64(active)
    position = count * part // parts
    while 0 < position < count and channel(active, position - 1) >> SHIFT == (
        channel(active, position) >> SHIFT
    ):
        position += 1
    return position


@device
def collect(active: int, position: int, end: int, base: int, row_bytes: int, rows: int) -> int:
    """Addresses of the rows of the block that begins at `position`; the last one fills up fours.

    `base` is where the row of channel 0 would stand if all rows were as far apart as in a block.

    Returns:
        The end of the block on the list.
    """
    block = channel(active, position) >> SHIFT
    first = position
    while position < end and channel(active, position) >> SHIFT == block:
        store_i64(rows + 8 * (position - first), base + channel(active, position) * row_bytes)
        position += 1
    repeat(rows + 8 * (position - first), (first - position) & 3)
    return position


@device
def fours(count: int) -> int:
    """Rounded up to a multiple of four."""
    return (count + 3) // 4 * 4


@device
def repeat(rows: int, count: int) -> None:
    """Write the address before `rows` `count` times more."""
    for index in range(count):
        store_i64(rows + 8 * index, load_i64(rows - 8))


# --- activations ------------------------------------------------------------------------------


@device
def quantize_values(values: int, digits: int) -> tuple[float, float]:
    """32 activations as integers, four high digits and four low ones by turns.

    Returns:
        Their scale and the total of the integers.
    """
    v, w = load(values), load(values + 64)
    sizes = maximum(maximum(v, sub(splat(0.0), v)), maximum(w, sub(splat(0.0), w)))
    most = largest(sizes)
    # What is no number is lost in the comparisons; 0 * x brings it back.
    scale = most / MOST + total(mul(add(v, w), splat(0.0)))
    inverse = splat(MOST / most) if most > LEAST else splat(0.0)
    first, second = rounded(mul(v, inverse)), rounded(mul(w, inverse))
    store_fours(digits, first, second)
    return scale, total(add(first, second))


@device
def digit_bytes(matrix: int) -> int:
    """Bytes that four activations take: two signed bytes each, or as they are for floats."""
    return 8 if load_i64(matrix + DTYPE) in (INT8, INT4) else 16


# --- sums -------------------------------------------------------------------------------------


@device
def _ask_four(a: int, b: int, c: int, d: int) -> None:
    prefetch_near(a)
    prefetch_near(b)
    prefetch_near(c)
    prefetch_near(d)


@device
def bytes_ahead(active: int, inputs: int, nbytes: int) -> int:
    """Bytes of a row of `nbytes` that are asked for ahead: the fewer rows are active, the more."""
    rows = max(1, CHANNELS * load_i64(active) // inputs)
    return min(nbytes, max(1, (LINES_AHEAD + rows // 2) // rows) * 64)


@device
def _sum_int8(rows: int, count: int, place: int, ask: int, digits: int, whole: float) -> Any:
    """64 bytes at `place` of `count` rows times their activations; asks for those at `ask`."""
    sums = start_int8(whole)
    for _ in range(0, count, 4):
        a, b, c, d = load_i64(rows), load_i64(rows + 8), load_i64(rows + 16), load_i64(rows + 24)
        _ask_four(a + ask, b + ask, c + ask, d + ask)
        sums = add_int8(sums, a + place, b + place, c + place, d + place, digits)
        rows, digits = rows + 32, digits + 8
    return sums


@device
def _sum_int4(rows: int, count: int, place: int, ask: int, digits: int, whole: float) -> Any:
    sums = start_int4(whole)
    for _ in range(0, count, 4):
        a, b, c, d = load_i64(rows), load_i64(rows + 8), load_i64(rows + 16), load_i64(rows + 24)
        _ask_four(a + ask, b + ask, c + ask, d + ask)
        sums = add_int4(sums, a + place, b + place, c + place, d + place, digits)
        rows, digits = rows + 32, digits + 8
    return sums


@device
def _asked(following: int, others: int, place: int, ahead: int, nbytes: int) -> int:
    """Where in rows to ask for lines while those at `place` are read.

    Where nothing of them is left, lines of the `others` rows on the table `following` are asked for
    here, and `place` itself is as good as nothing.
    """
    ask = place + ahead
    if ask < nbytes:
        return ask
    for row in range(following, following + 8 * others, 8):
        prefetch_near(load_i64(row) + ask - nbytes)
    return place


@device
def _add_bf16(rows: int, count: int, place: int, ask: int, values: int, sums: int) -> None:
    for half in range(place, place + 64, 32):
        v, x = load(sums), values
        for row in range(rows, rows + 8 * count, 32):
            a, b = load_i64(row), load_i64(row + 8)
            c, d = load_i64(row + 16), load_i64(row + 24)
            _ask_four(a + ask, b + ask, c + ask, d + ask)
            w = mul(load_splat(x + 8), load_bf16(c + half))
            v = fma(load_splat(x), load_bf16(a + half), v)
            v = fma(load_splat(x + 4), load_bf16(b + half), v)
            v, x = add(v, fma(load_splat(x + 12), load_bf16(d + half), w)), x + 16
        store(sums, v)
        sums += 64


@device
def _add_f32(rows: int, count: int, place: int, ask: int, values: int, sums: int) -> None:
    v, x = load(sums), values
    for row in range(rows, rows + 8 * count, 32):
        a, b, c, d = load_i64(row), load_i64(row + 8), load_i64(row + 16), load_i64(row + 24)
        _ask_four(a + ask, b + ask, c + ask, d + ask)
        v, w = fma(load_splat(x), load(a + place), v), mul(load_splat(x + 8), load(c + place))
        v = fma(load_splat(x + 4), load(b + place), v)
        v, x = add(v, fma(load_splat(x + 12), load(d + place), w)), x + 16
    store(sums, v)


@device
def _add_floats(
    matrix: int, block: int, rows: int, following: int, ahead: int, values: int, nbytes: int,
    sums: int,
) -> None:  # fmt: skip
    count, others = load_i64(block + ROWS), load_i64(block + BLOCK_BYTES + ROWS)
    for place in range(0, nbytes, 64):
        ask = _asked(following, others, place, ahead, nbytes)
        if load_i64(matrix + DTYPE) == BF16:
            _add_bf16(rows, count, place, ask, values, sums + 2 * place)
        else:
            _add_f32(rows, count, place, ask, values, sums + place)


@device
def _add_int8(
    block: int, rows: int, following: int, ahead: int, digits: int, first: int, nbytes: int,
    sums: int,
) -> None:  # fmt: skip
    header, other = load_i64(block) + 2 * first, load_i64(block + BLOCK_BYTES) + 2 * first
    count, others = load_i64(block + ROWS), load_i64(block + BLOCK_BYTES + ROWS)
    scale, whole = splat(load_f32(block + SCALE)), load_f32(block + WHOLE)
    for place in range(0, nbytes, 64):
        ask = _asked(following, others, place, ahead, nbytes)
        ask_bytes(other + 2 * place, 128)
        tile = _sum_int8(rows, count, place, ask, digits, whole)
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
        ask = _asked(following, others, place, ahead, nbytes)
        ask_bytes(other + 4 * place, 256)
        tile = _sum_int4(rows, count, place, ask, digits, offset)
        scales, to = header + 4 * place, sums + 8 * place
        if minima != 0:
            ask_bytes(other + minima + 4 * place, 256)
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
        matrix: of which it is a block.
        block: its entry, behind which that of the next block stands.
        rows: the table of addresses of its rows.
        following: that of the next block's rows, which are asked for at the end.
        ahead: so many bytes of every row are asked for before they are read.
        digits: the activations.
        first: the column where rows begin.
        nbytes: of every row.
        sums: float32, in the order of tiles (`order_sums`).
    """
    dtype = load_i64(matrix + DTYPE)
    if dtype == INT8:
        _add_int8(block, rows, following, ahead, digits, first, nbytes, sums)
    elif dtype == INT4:
        _add_int4(matrix, block, rows, following, ahead, digits, first, nbytes, sums)
    else:
        _add_floats(matrix, block, rows, following, ahead, digits, nbytes, sums)


@device
def ask_bytes(place: int, nbytes: int) -> None:
    """Ask for a run of bytes, into L2."""
    for line in range(0, nbytes, 64):
        prefetch(place + line)


@device
def clear(sums: int, columns: int) -> None:
    """Sums to zero."""
    for c in range(0, columns, 16):
        store(sums + 4 * c, splat(0.0))


@device
def order_sums(matrix: int, sums: int, columns: int) -> None:
    """Put sums into the order of columns, once all blocks are added."""
    dtype = load_i64(matrix + DTYPE)
    if dtype == INT8:
        for place in range(0, 4 * columns, 256):
            natural8(sums + place)
    elif dtype == INT4:
        for place in range(0, 4 * columns, 512):
            natural16(sums + place)


@device
def bytes_of(matrix: int, columns: int) -> int:
    """Bytes that the numbers of so many columns take in a row."""
    return columns * load_i64(matrix + BITS) // 8
