"""The active rows of an input-major matrix by blocks of 32 channels: addresses and activations.

    active list        3, 17, 31  |  40, 44  |  ...           blocks: channels 0-31, 32-63, ...
    table of rows      address of row 3, 17, 31, 31  |  40, 44, 44, 44  |  ...     filled to fours
    digits             four high digits, four low digits, for each four rows (int8, int4)
    entry of a block   header, rows, scale and total of activations

The channels of a block share one header of scales, so their rows are summed together; what sums
them is `axpy_blocks`. In int6k sixteen channels share scales and are a block. A list is cut into
parts, one for each chunk, at borders of 32 channels.
"""

from __future__ import annotations

from sparity_edge.kernels.active_list import FIRST
from sparity_edge.kernels.checks import CHANNEL, LENGTH, STEP
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import BF16, DTYPE
from sparity_edge.kernels.simd.bounds import outside
from sparity_edge.kernels.simd.memory import (
    load,
    load_i32,
    load_i64,
    prefetch,
    prefetch_near,
    store_i64,
)
from sparity_edge.kernels.simd.vectors import add, largest, maximum, mul, rounded, splat, sub, total
from sparity_edge.kernels.sparse.integer_axpy import store_fours

SHIFT = 5  # the logarithm of the channels in a block
CHANNELS = 1 << SHIFT
MOST = 127 * 256  # so that the high digit of an activation fits into a signed byte
LEAST = 1e-30  # smaller activations count as zero: their inverse is not finite
# The entry of a block: its header, rows (a multiple of four), scale and total of activations.
HEADER, ROWS, SCALE, WHOLE, BLOCK_BYTES = 0, 8, 16, 20, 32
# Places in scratch, of which the first KB is that of the dot products (vmm).
VALUES, FIRST_FREE = 1024, 1152


# --- the list ---------------------------------------------------------------------------------


@device
def channel(active: int, position: int) -> int:
    """The channel at a position of an active list, counted from 0."""
    return load_i32(active + FIRST + 4 * position)


@device
def unsound(active: int, size: int) -> bool:
    """Whether a list is not one of ascending channels below `size`, under the switch (`checks`)."""
    count, before = load_i64(active), -1
    if outside(LENGTH, count, size + 1) != 0:
        return True
    for position in range(count):
        here = channel(active, position)
        if outside(CHANNEL, here, size) != 0 or outside(STEP, here - before - 1, size) != 0:
            return True
        before = here
    return False


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
def boundaries(active: int, part: int, parts: int, size: int, by_channel: int) -> tuple[int, int]:
    """Where a part begins and ends on the list.

    Args:
        active: the active list.
        part: which one of `parts`.
        parts: even shares of the list, or of the `size` channels there are.
        size: channels.
        by_channel: whether it is of those; on a list of all of them both are the same.
    """
    if by_channel == 0:
        return boundary(active, part, parts), boundary(active, part + 1, parts)
    start = _first_from(active, size * part // parts)
    return start, _first_from(active, size * (part + 1) // parts)


@device
def _first_from(active: int, border: int) -> int:
    """The position of the first channel on the list that belongs to no block before a border."""
    first = (border + CHANNELS - 1) // CHANNELS * CHANNELS
    low, high = 0, load_i64(active)
    while low < high:
        middle = (low + high) // 2
        if channel(active, middle) < first:
            low = middle + 1
        else:
            high = middle
    return low


@device
def block_shift(group: int) -> int:
    """The logarithm of the channels in a block of rows, `group` of which share scales."""
    return 4 if group == 16 else SHIFT


@device
def collect(
    active: int, position: int, end: int, shift: int, base: int, row_bytes: int, rows: int
) -> int:
    """Write the addresses of the rows of a block; the last one is repeated up to fours.

    Args:
        active: the active list.
        position: where the block begins on it.
        end: where the part ends on it.
        shift: the logarithm of the channels in a block.
        base: where the row of channel 0 would stand if all rows were as far apart as in a block.
        row_bytes: that distance.
        rows: the table to write.

    Returns:
        The end of the block on the list.
    """
    block = channel(active, position) >> shift
    first = position
    while position < end and channel(active, position) >> shift == block:
        store_i64(rows + 8 * (position - first), base + channel(active, position) * row_bytes)
        position += 1
    repeat(rows + 8 * (position - first), (first - position) & 3)
    return position


@device
def fours(count: int) -> int:
    """`count` rounded up to a multiple of four."""
    return (count + 3) // 4 * 4


@device
def repeat(rows: int, count: int) -> None:
    """Write the address before `rows` `count` times more."""
    for index in range(count):
        store_i64(rows + 8 * index, load_i64(rows - 8))


# --- activations ------------------------------------------------------------------------------


@device
def quantize_values(values: int, digits: int) -> tuple[float, float]:
    """Quantise 32 activations to 16 bits: four high digits and four low ones, interleaved.

    Args:
        values: the address of 32 float32.
        digits: where 64 bytes go.

    Returns:
        Their scale and the total of the integers.
    """
    v, w = load(values), load(values + 64)
    sizes = maximum(maximum(v, sub(splat(0.0), v)), maximum(w, sub(splat(0.0), w)))
    most = largest(sizes)
    # NaN is lost in the comparisons; 0 * x brings it back.
    scale = most / MOST + total(mul(add(v, w), splat(0.0)))
    inverse = splat(MOST / most) if most > LEAST else splat(0.0)
    first, second = rounded(mul(v, inverse)), rounded(mul(w, inverse))
    store_fours(digits, first, second)
    return scale, total(add(first, second))


@device
def digit_bytes(matrix: int) -> int:
    """Bytes that four activations take: two signed bytes each, or as they are for floats."""
    return 16 if load_i64(matrix + DTYPE) <= BF16 else 8


# --- prefetches -------------------------------------------------------------------------------

# A prefetch may be dropped where many are under way, and each that was costs a wait for memory: so
# cache lines are prefetched once more so many bytes before they are read, when hardly any is still
# missing (rows of 1.7 KB, with five rows ahead in `ffn`: time x 0.92 at density 0.3, 0.95 at 1.0;
# AMD EPYC, Zen 5; bench/kernels.py).
AGAIN = 256


@device
def prefetch_bytes(place: int, nbytes: int) -> None:
    """Prefetch a run of `nbytes` bytes into L2."""
    for line in range(0, nbytes, 64):
        prefetch(place + line)


@device
def prefetch_near_bytes(place: int, nbytes: int) -> None:
    """Prefetch a run of `nbytes` bytes into L1."""
    for line in range(place, place + nbytes, 64):
        prefetch_near(line)


@device
def prefetch_four(a: int, b: int, c: int, d: int) -> None:
    """One cache line of each of four rows, into L1."""
    prefetch_near(a)
    prefetch_near(b)
    prefetch_near(c)
    prefetch_near(d)


@device
def prefetch_place(following: int, others: int, place: int, ahead: int, nbytes: int) -> int:
    """Where in rows to prefetch while the cache lines at `place` are read, in bytes.

    Where rows end before that, the `others` rows on the table `following` are prefetched here, and
    what is returned lies a few cache lines on: those were prefetched already (AGAIN).
    """
    fetch = place + ahead
    if fetch < nbytes:
        return fetch
    for row in range(following, following + 8 * others, 8):
        prefetch_near(load_i64(row) + fetch - nbytes)
    return min(place + AGAIN, nbytes - 64)
