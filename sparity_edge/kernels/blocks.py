"""Blocks: the active rows among 32 neighbouring channels of an input-major matrix, added up.

The channels of a block share one header of scales, so their rows are summed as integers and scaled
once. Four rows at a time are gone through from end to end, asking ahead at the same pace; the sums
of the columns stay in L1 meanwhile. (One tile of columns through all rows, with its sums in
registers, takes fewer instructions but jumps with every line, and asking for rows long before does
not help: the CPU drops what it has no room for. 0.6 of what reading the same rows gives.)
"""

from __future__ import annotations

from sparity_edge.kernels.active import FIRST
from sparity_edge.kernels.compress import load_i32, store_i64
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import BF16, BITS, DTYPE, INT4, INT8, MINIMUM, PADDED
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
    prefetch_near,
    splat,
    store,
    sub,
    total,
)
from sparity_edge.kernels.words import (
    add_eight_int4,
    add_four_int4,
    add_four_int8,
    natural8,
    natural16,
    put8,
    put16,
    put16_minima,
    rounded,
    store_fours,
)

SHIFT = 5  # the logarithm of the channels in a block
CHANNELS = 1 << SHIFT
MOST = 127 * 256  # so that the high digit of an activation fits into a signed byte
LEAST = 1e-30  # smaller activations count as zero: their inverse is not finite
# How far ahead rows are asked for, in bytes of each, into L1: 1 KB gives 0.88 of streaming reads on
# rows of 4 KB at density 0.5, the next four rows 0.77, and either into L2 0.75.
NEAR = 1024
MOST_AHEAD = 32  # rows
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
def _run(
    dtype: int, rows: tuple[int, int, int, int], asks: tuple[int, int, int, int],
    start: int, end: int, digits: int, sums: int,
) -> None:  # fmt: skip
    """Bytes start..end-1 of four rows, while those of `asks` are asked for."""
    a, b, c, d = rows
    e, f, g, h = asks
    if dtype == INT8:
        for i in range(start, end, 64):
            _ask_four(e + i, f + i, g + i, h + i)
            add_four_int8(sums + 4 * i, a + i, b + i, c + i, d + i, digits)
        return
    if dtype == INT4:
        for i in range(start, end, 64):
            _ask_four(e + i, f + i, g + i, h + i)
            add_four_int4(sums + 8 * i, a + i, b + i, c + i, d + i, digits)
        return
    p, q, r, s = (
        load_splat(digits), load_splat(digits + 4), load_splat(digits + 8), load_splat(digits + 12)
    )  # fmt: skip
    for i in range(start, end, 64):
        _ask_four(e + i, f + i, g + i, h + i)
        if dtype == BF16:
            for j in range(i, i + 64, 32):
                v = fma(p, load_bf16(a + j), load(sums + 2 * j))
                w = mul(r, load_bf16(c + j))
                v, w = fma(q, load_bf16(b + j), v), fma(s, load_bf16(d + j), w)
                store(sums + 2 * j, add(v, w))
        else:
            v, w = fma(p, load(a + i), load(sums + i)), mul(r, load(c + i))
            store(sums + i, add(fma(q, load(b + i), v), fma(s, load(d + i), w)))


@device
def _run_eight(rows: int, asks: int, start: int, ask: int, end: int, digits: int, sums: int) -> int:
    """Bytes start..end-1 of eight int4 rows; asks for those from `ask` on of eight others."""
    a, b, c, d = load_i64(rows), load_i64(rows + 8), load_i64(rows + 16), load_i64(rows + 24)
    e, f, g, h = load_i64(rows + 32), load_i64(rows + 40), load_i64(rows + 48), load_i64(rows + 56)
    p, q, r, s = load_i64(asks), load_i64(asks + 8), load_i64(asks + 16), load_i64(asks + 24)
    t, u = load_i64(asks + 32), load_i64(asks + 40)
    v, w = load_i64(asks + 48), load_i64(asks + 56)
    for i in range(start, end, 64):
        _ask_four(p + ask, q + ask, r + ask, s + ask)
        _ask_four(t + ask, u + ask, v + ask, w + ask)
        add_eight_int4(sums, a + i, b + i, c + i, d + i, e + i, f + i, g + i, h + i, digits)
        sums, ask = sums + 512, ask + 64
    return sums


@device
def _add_eight(rows: int, wanted: int, near: int, nbytes: int, digits: int, sums: int) -> None:
    sums = _run_eight(rows, rows, 0, near, nbytes - near, digits, sums)
    _run_eight(rows, wanted, nbytes - near, 0, nbytes, digits, sums)


@device
def rows_ahead(matrix: int, nbytes: int) -> int:
    """How far on in a table the rows stand that are asked for meanwhile, of `nbytes` each."""
    ahead = 32 * max(1, min(4, NEAR // nbytes))
    return ahead + 32 if load_i64(matrix + DTYPE) == INT4 else ahead  # eight of int4 go at once


@device
def add_rows(
    matrix: int, rows: int, wanted: int, near: int, count: int, nbytes: int, digits: int, sums: int
) -> None:
    """sums += x[i] * numbers of row i, for `count` rows of a block (a multiple of four).

    `rows` and `wanted` are tables of addresses, `nbytes` of each row count. The last `near` bytes
    of a row go by while as many of the one on `wanted` are asked for, the others while its own are.
    Sums are int32, or float32 for floats.
    """
    dtype, step = load_i64(matrix + DTYPE), digit_bytes(matrix)
    while dtype == INT4 and count >= 8:
        _add_eight(rows, wanted, near, nbytes, digits, sums)
        rows, wanted, digits, count = rows + 64, wanted + 64, digits + 2 * step, count - 8
    for _ in range(0, count, 4):
        a, b = load_i64(rows), load_i64(rows + 8)
        c, d = load_i64(rows + 16), load_i64(rows + 24)
        four, asks = (a, b, c, d), (a + near, b + near, c + near, d + near)
        start, end = 0, nbytes - near
        for _ in range(2):
            _run(dtype, four, asks, start, end, digits, sums)
            a, b = load_i64(wanted) - end, load_i64(wanted + 8) - end
            c, d = load_i64(wanted + 16) - end, load_i64(wanted + 24) - end
            asks, start, end = (a, b, c, d), end, nbytes
        rows, wanted, digits = rows + 32, wanted + 32, digits + step


@device
def ask_bytes(place: int, nbytes: int) -> None:
    """Ask for a run of bytes, into L2."""
    for line in range(0, nbytes, 64):
        prefetch(place + line)


@device
def scale_up(
    matrix: int, header: int, other: int, columns: int, scale: float, whole: float,
    integers: int, sums: int,
) -> None:  # fmt: skip
    """sums += what the integer sums of a block stand for; these are zero then.

    Args:
        header: where the scales of the first column stand; minima follow after a whole row.
        other: the same of the block that comes next, which is asked for.
        scale: of the activations.
        whole: the total of the integers that they are.
    """
    minima = 2 * load_i64(matrix + PADDED) if load_i64(matrix + MINIMUM) != 0 else 0
    if load_i64(matrix + DTYPE) == INT8:
        for i in range(0, 2 * columns, 128):
            ask_bytes(other + i, 128)
            put8(integers + 2 * i, header + i, sums + 2 * i, splat(scale), splat(whole))
        return
    for i in range(0, 2 * columns, 256):
        place, value = integers + 2 * i, sums + 2 * i
        ask_bytes(other + i, 256)
        if minima != 0:
            ask_bytes(other + minima + i, 256)
            put16_minima(
                place, header + i, header + minima + i, value, splat(scale), splat(scale * whole)
            )
        else:
            put16(place, header + i, value, splat(scale), splat(whole))


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
