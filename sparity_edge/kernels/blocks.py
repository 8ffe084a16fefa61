"""Blocks: the active rows of 8 or 32 neighbouring channels of an input-major matrix, added up.

A block shares one header of scales, so its rows are summed as integers and scaled once. The sums of
one tile of columns stay in registers while it runs through the rows of the block; meanwhile the
cursor asks for the next block, row by row in the order of memory, so that what DRAM sees are long
runs although the arithmetic jumps. A block in L2 is 32 rows of 14336 bytes at most: 0.5 MB.
"""

from __future__ import annotations

from sparity_edge.kernels.active import FIRST
from sparity_edge.kernels.compress import load_i32, store_i64
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import (
    BF16,
    BITS,
    DTYPE,
    GROUP,
    INT4,
    INT8,
    MINIMUM,
    PADDED,
)
from sparity_edge.kernels.simd import (
    add,
    fma,
    largest,
    load,
    load_bf16,
    load_i64,
    load_splat,
    maximum,
    mul,
    prefetch,
    splat,
    store,
    sub,
    total,
)
from sparity_edge.kernels.words import (
    add_four_int4,
    add_four_int8,
    natural8,
    natural16,
    put8,
    put16,
    put16_minima,
    rounded,
    start8,
    start16,
    store_fours,
)

# Channels of a block, as a shift: as many as share scales for integers; without scales, as many as
# are worth asking for at once.
FLOATS, INTEGERS = 3, 5
MOST = 127 * 256  # so that the high digit of an activation fits into a signed byte
LEAST = 1e-30  # smaller activations count as zero: their inverse is not finite

# Scratch. The first part is that of the dot products (vmm); segments are digits of addresses, start
# and end, the first one the block's header.
VALUES, DIGITS, SPARE, CURSOR, SEGMENTS = 1024, 1152, 1280, 1792, 2048
SEGMENTS_BYTES = 1024
SCRATCH_BYTES = SEGMENTS + 2 * SEGMENTS_BYTES


# --- the list ---------------------------------------------------------------------------------


@device
def channel(active: int, position: int) -> int:
    """The channel at a position of an active list."""
    return load_i32(active + FIRST + 4 * position)


@device
def block_shift(matrix: int) -> int:
    """The logarithm of the channels in a block."""
    return INTEGERS if load_i64(matrix + GROUP) != 0 else FLOATS


@device
def boundary(active: int, part: int, parts: int, shift: int) -> int:
    """Where part `part` of `parts` begins on the list; parts do not cut blocks."""
    count = load_i64(active)
    position = count * part // parts
    while 0 < position < count and channel(active, position - 1) >> shift == (
        channel(active, position) >> shift
    ):
        position += 1
    return position


@device
def block_end(active: int, position: int, end: int, shift: int) -> int:
    """The end of the block that begins at `position`."""
    block = channel(active, position) >> shift
    while position < end and channel(active, position) >> shift == block:
        position += 1
    return position


# --- asking ahead -----------------------------------------------------------------------------


@device
def set_segment(segments: int, index: int, start: int, nbytes: int) -> None:
    """Segment `index` of a block: its header is 0, its rows follow."""
    store_i64(segments + 16 * index, start)
    store_i64(segments + 16 * index + 8, start + nbytes)


@device
def fill_segments(segments: int, count: int) -> None:
    """Repeat the last row up to a multiple of four; such a row is multiplied by zero."""
    start = load_i64(segments + 16 * count)
    for index in range(count + 1, (count + 3) // 4 * 4 + 1):
        set_segment(segments, index, start, 0)


@device
def set_cursor(cursor: int, segments: int, first: int, count: int) -> None:
    """Begin to ask for segments first..count of a block."""
    store_i64(cursor, 0)
    store_i64(cursor + 8, 0)
    store_i64(cursor + 16, segments + 16 * first)
    store_i64(cursor + 24, segments + 16 * (count + 1))


@device
def ask(cursor: int, lines: int) -> None:
    """Ask for the next `lines` cache lines that the cursor has before it."""
    place, end = load_i64(cursor), load_i64(cursor + 8)
    while True:
        until = min(end, place + 64 * lines)
        lines -= (until - place + 63) >> 6
        while place < until:
            prefetch(place)
            place += 64
        if lines <= 0:
            break
        segment = load_i64(cursor + 16)
        if segment >= load_i64(cursor + 24):
            break
        place, end = load_i64(segment), load_i64(segment + 8)
        store_i64(cursor + 16, segment + 16)
    store_i64(cursor, place)
    store_i64(cursor + 8, end)


# --- sums -------------------------------------------------------------------------------------


@device
def quantize_values(scratch: int) -> tuple[float, float]:
    """The 32 activations at VALUES as integers to DIGITS; returns their scale and their total."""
    v, w = load(scratch + VALUES), load(scratch + VALUES + 64)
    sizes = maximum(maximum(v, sub(splat(0.0), v)), maximum(w, sub(splat(0.0), w)))
    most = largest(sizes)
    # What is no number is lost in the comparisons; 0 * x brings it back.
    scale = most / MOST + total(mul(add(v, w), splat(0.0)))
    inverse = splat(MOST / most) if most > LEAST else splat(0.0)
    first, second = rounded(mul(v, inverse)), rounded(mul(w, inverse))
    store_fours(scratch + DIGITS, first, second)
    return scale, total(add(first, second))


@device
def _add_int8(
    matrix: int, segments: int, count: int, place: int, lines: int, scratch: int
) -> None:
    scale, whole = quantize_values(scratch)
    header, sums = load_i64(segments), load_i64(scratch + CURSOR + 32)
    for _ in range(load_i64(matrix + PADDED) // 64):
        row, digits, part = segments + 16, scratch + DIGITS, start8(splat(whole))
        for _ in range(0, count, 4):
            part = add_four_int8(
                part, load_i64(row) + place, load_i64(row + 16) + place,
                load_i64(row + 32) + place, load_i64(row + 48) + place, digits,
            )  # fmt: skip
            row, digits = row + 64, digits + 8
        ask(scratch + CURSOR, lines)
        put8(part, header, sums, splat(scale))
        place, header, sums = place + 64, header + 128, sums + 256


@device
def _add_int4(
    matrix: int, segments: int, count: int, place: int, lines: int, scratch: int
) -> None:
    scale, whole = quantize_values(scratch)
    header, sums = load_i64(segments), load_i64(scratch + CURSOR + 32)
    minima = 2 * load_i64(matrix + PADDED) if load_i64(matrix + MINIMUM) != 0 else 0
    first = 0.0 if minima != 0 else whole
    for _ in range(load_i64(matrix + PADDED) // 128):
        row, digits, part = segments + 16, scratch + DIGITS, start16(splat(first))
        for _ in range(0, count, 4):
            part = add_four_int4(
                part, load_i64(row) + place, load_i64(row + 16) + place,
                load_i64(row + 32) + place, load_i64(row + 48) + place, digits,
            )  # fmt: skip
            row, digits = row + 64, digits + 8
        ask(scratch + CURSOR, lines)
        if minima != 0:
            put16_minima(part, header, header + minima, sums, splat(scale), splat(scale * whole))
        else:
            put16(part, header, sums, splat(scale))
        place, header, sums = place + 64, header + 256, sums + 512


@device
def _add_floats(
    matrix: int, segments: int, count: int, offset: int, lines: int, scratch: int
) -> None:
    half = load_i64(matrix + DTYPE) == BF16
    sums, place = load_i64(scratch + CURSOR + 32), offset
    for _ in range(tiles(matrix)):
        a, b = load(sums), load(sums + 64) if half else splat(0.0)
        for index in range(count):
            row = load_i64(segments + 16 + 16 * index) + place
            x = load_splat(scratch + VALUES + 4 * index)
            if half:
                a, b = fma(x, load_bf16(row), a), fma(x, load_bf16(row + 32), b)
            else:
                a = fma(x, load(row), a)
        store(sums, a)
        sums, place = sums + 64, place + 64
        if half:
            store(sums, b)
            sums += 64
        ask(scratch + CURSOR, lines)


@device
def tiles(matrix: int) -> int:
    """Tiles of 64 bytes in a row's numbers: how often `add_block` asks for lines."""
    return load_i64(matrix + PADDED) * load_i64(matrix + BITS) // 512


@device
def add_block(
    matrix: int, segments: int, count: int, offset: int, lines: int, scratch: int
) -> None:
    """sums += x[i] * row i over the rows of a block, x at VALUES (zeros behind the last).

    `offset` is where in a segment the numbers start; `lines` are asked for with every tile.
    """
    fill_segments(segments, count)
    dtype = load_i64(matrix + DTYPE)
    if dtype == INT8:
        _add_int8(matrix, segments, count, offset, lines, scratch)
    elif dtype == INT4:
        _add_int4(matrix, segments, count, offset, lines, scratch)
    else:
        _add_floats(matrix, segments, count, offset, lines, scratch)


@device
def clear_sums(matrix: int, sums: int, scratch: int) -> None:
    """Sums of a whole row to zero, and remember where they are."""
    store_i64(scratch + CURSOR + 32, sums)
    for c in range(0, load_i64(matrix + PADDED), 16):
        store(sums + 4 * c, splat(0.0))


@device
def order_sums(matrix: int, scratch: int) -> None:
    """Put the sums into the order of columns, once all blocks are added."""
    sums, dtype = load_i64(scratch + CURSOR + 32), load_i64(matrix + DTYPE)
    size = 4 * load_i64(matrix + PADDED)
    if dtype == INT8:
        for place in range(0, size, 256):
            natural8(sums + place)
    elif dtype == INT4:
        for place in range(0, size, 512):
            natural16(sums + place)
