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
    load_f16,
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
    no_sums8,
    no_sums16,
    rounded,
    store_fours,
    store_sums8,
    store_sums16,
)

# The next block should not be asked for too early: 8 channels a block make int8 1.1 times faster
# than 32 (37 MB at density 0.5: 12.4 ms against 14.0), but int4, whose header weighs as much as 8
# rows, slower (10.2 against 9.2).
FEW = 3
MANY = 5
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
    return MANY if load_i64(matrix + DTYPE) == INT4 else FEW


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
    for _ in range(lines):
        if place >= end:
            segment = load_i64(cursor + 16)
            if segment >= load_i64(cursor + 24):
                break
            place, end = load_i64(segment), load_i64(segment + 8)
            store_i64(cursor + 16, segment + 16)
        prefetch(place)
        place += 64
    store_i64(cursor, place)
    store_i64(cursor + 8, end)


# --- sums -------------------------------------------------------------------------------------


@device
def quantize_values(scratch: int) -> tuple[float, float]:
    """The 32 activations at VALUES as integers to DIGITS; returns their scale and their sum."""
    v, w = load(scratch + VALUES), load(scratch + VALUES + 64)
    sizes = maximum(maximum(v, sub(splat(0.0), v)), maximum(w, sub(splat(0.0), w)))
    most = largest(sizes)
    # What is no number is lost in the comparisons; 0 * x brings it back.
    scale = most / MOST + total(mul(add(v, w), splat(0.0)))
    inverse = splat(MOST / most) if most > LEAST else splat(0.0)
    first, second = rounded(mul(v, inverse)), rounded(mul(w, inverse))
    store_fours(scratch + DIGITS, first, second)
    return scale, scale * total(add(first, second))


@device
def _scale_up(
    matrix: int, header: int, column: int, count: int, scale: float, offset: float, scratch: int
) -> None:
    """Add `count` columns of sums at SPARE; `offset` goes with minima, or else with scales."""
    sums = load_i64(scratch + CURSOR + 32) + 4 * column
    minima = 0
    if load_i64(matrix + MINIMUM) != 0:
        minima = header + 2 * load_i64(matrix + PADDED)
    for c in range(0, count, 16):
        scales, value = load_f16(header + 2 * (column + c), 16), load(sums + 4 * c)
        part = mul(load(scratch + SPARE + 4 * c), splat(scale))
        if minima != 0:
            value = fma(load_f16(minima + 2 * (column + c), 16), splat(offset), value)
        else:
            part = add(part, splat(offset))
        store(sums + 4 * c, fma(scales, part, value))


@device
def _add_integers(
    matrix: int, segments: int, count: int, place: int, lines: int, scratch: int
) -> None:
    scale, sum_x = quantize_values(scratch)
    header, cursor = load_i64(segments), scratch + CURSOR
    nibbles = load_i64(matrix + DTYPE) == INT4
    tile = 128 if nibbles else 64
    offset = sum_x
    if load_i64(matrix + MINIMUM) == 0:  # what the integer 0 stands for
        offset *= -8.0 if nibbles else -128.0
    for column in range(0, load_i64(matrix + PADDED), tile):
        row, digits = segments + 16, scratch + DIGITS
        if nibbles:
            wide = no_sums16()
            for _ in range(0, count, 4):
                wide = add_four_int4(
                    wide, load_i64(row) + place, load_i64(row + 16) + place,
                    load_i64(row + 32) + place, load_i64(row + 48) + place, digits,
                )  # fmt: skip
                row, digits = row + 64, digits + 8
            store_sums16(scratch + SPARE, wide)
        else:
            sums = no_sums8()
            for _ in range(0, count, 4):
                sums = add_four_int8(
                    sums, load_i64(row) + place, load_i64(row + 16) + place,
                    load_i64(row + 32) + place, load_i64(row + 48) + place, digits,
                )  # fmt: skip
                row, digits = row + 64, digits + 8
            store_sums8(scratch + SPARE, sums)
        ask(cursor, lines)
        _scale_up(matrix, header, column, tile, scale, offset, scratch)
        place += 64


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
    if load_i64(matrix + DTYPE) in (INT8, INT4):
        _add_integers(matrix, segments, count, offset, lines, scratch)
    else:
        _add_floats(matrix, segments, count, offset, lines, scratch)


@device
def clear_sums(matrix: int, sums: int, scratch: int) -> None:
    """Sums of a whole row to zero, and remember where they are."""
    store_i64(scratch + CURSOR + 32, sums)
    for c in range(0, load_i64(matrix + PADDED), 16):
        store(sums + 4 * c, splat(0.0))
