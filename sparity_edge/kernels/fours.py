"""Products of four rows of an output-major matrix with the activations, for integers.

Narrow rows cost little work each when four share what they have in common: rows of 576 numbers in
int4 come out of the second-level cache at 49 instead of 29 GB/s a thread. Activations of 14336
inputs fill two thirds of the first-level cache, and four rows share what each pass over them brings
in again from the second: two threads went from 0.66 to 0.85 (int4) and from 0.67 to 0.82 (int8) of
the memory's speed. In between `dots` is as fast or faster.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.bytewise import (
    high_nibble_scales,
    high_nibbles_in_place,
    load_both_nibbles,
    load_bytes,
    load_offset_bytes,
    load_offset_bytes_half,
    low_nibbles,
    splat_halves,
    splat_pair,
)
from sparity_edge.kernels.dots import DIGITS, SCALES, SUMS, digit_dot, join_scales, minima_of
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import DTYPE, GROUP, HEADER_BYTES, INT8, PADDED, ROW_BYTES
from sparity_edge.kernels.simd import fma, load, load_i64, load_splat, splat, total
from sparity_edge.kernels.simd import prefetch_near as ask
from sparity_edge.layout import Layout

# Bytes of each row asked for ahead: 1 and 2 KB gave 0.71 and 0.85 of the memory's speed (int4).
NEAR = 2048
# Inputs of narrow rows at most, whose memory is asked for in the order in which it stands, and of
# wide ones at least, whose four rows are asked for side by side: all of them would not fit into L1.
NARROW, WIDE = 2048, 8192

Four = tuple[float, float, float, float]


def takes_four(layout: Layout) -> bool:
    """Whether `four_dots` knows the format and is faster than `two_dots`."""
    return layout.dtype in ("int8", "int4") and not NARROW < layout.padded < WIDE


@device
def four_dots(
    matrix: int, a: int, b: int, c: int, d: int, arguments: int, ahead: int, scratch: int
) -> Four:
    """The products of four rows.

    Args:
        matrix: the words of the matrix, whose format is int8 or int4.
        a, b, c, d: addresses of the rows.
        arguments: those of `dots`.
        ahead: how many bytes on memory is asked for; of wide rows, where the next four stand.
        scratch: 256 bytes.
    """
    if load_i64(matrix + DTYPE) == INT8:
        return _int8(matrix, a, b, c, d, arguments, ahead, scratch)
    return _int4(matrix, a, b, c, d, arguments, ahead, scratch)


@device
def _ask(place: int, apart: int) -> None:
    ask(place)
    ask(place + apart)
    ask(place + 2 * apart)
    ask(place + 3 * apart)


@device
def _order(matrix: int, unit: int) -> tuple[int, int, int]:
    """How far apart four lines to ask for are, how far on the next four, and the turning point.

    At that group a row has been asked for to its end; `unit` bytes are a group.
    """
    if load_i64(matrix + PADDED) < WIDE:
        return 64, 256, 0
    groups = load_i64(matrix + PADDED) // 32
    return load_i64(matrix + ROW_BYTES), 64, (groups - NEAR // unit + 15) // 16 * 16


@device
def _bytes_unit(sums: Any, scale: int, row: int, x: int) -> Any:
    """Sixty-four products of a row, whose two scales stand at `scale`, added to its sums."""
    return fma(splat_halves(scale, scale + 4), digit_dot(load_offset_bytes(row), x), sums)


@device
def _bytes_half(sums: Any, scale: int, row: int, x: int) -> Any:
    return fma(load_splat(scale), digit_dot(load_offset_bytes_half(row), x), sums)


@device
def _nibbles_unit(sums: Any, scale: int, row: int, x: int) -> Any:
    """As `_bytes_unit`, 128 products."""
    both = load_bytes(row)
    sums = fma(splat_pair(scale), digit_dot(low_nibbles(both), x), sums)
    return fma(splat_pair(scale + 8), digit_dot(high_nibbles_in_place(both), x + 128), sums)


@device
def _nibbles_half(sums: Any, scale: int, row: int, x: int) -> Any:
    return fma(splat_pair(scale), digit_dot(load_both_nibbles(row), x), sums)


@device
def _int8(
    matrix: int, a: int, b: int, c: int, d: int, arguments: int, ahead: int, scratch: int
) -> Four:
    e, f, g, h = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    i, j, k, m = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    groups, group = load_i64(matrix + PADDED) // 32, load_i64(matrix + GROUP)
    place, x = load_i64(matrix + HEADER_BYTES), load_i64(arguments + DIGITS)
    x_scales, x_sums = load_i64(arguments + SCALES), load_i64(arguments + SUMS)
    one, offset = splat(1.0), splat(-128.0)
    apart, pace, turn = _order(matrix, 32)
    later = a + ahead
    for _ in range(0, place, 64):
        _ask(later, apart)
        later += pace
    wanted = a + place + 32 * (groups - turn)
    for block in range(0, groups, 16):
        left, v, w = groups - block, load(x_scales + 4 * block), load(x_sums + 4 * block)
        i = join_scales(group, 0, a, block, left, v, w, one, i, scratch)
        j = join_scales(group, 0, b, block, left, v, w, one, j, scratch + 64)
        k = join_scales(group, 0, c, block, left, v, w, one, k, scratch + 128)
        m = join_scales(group, 0, d, block, left, v, w, one, m, scratch + 192)
        if block == turn:
            wanted = later
        count, scale = min(16, left), scratch
        for _ in range(0, count - 1, 2):
            _ask(wanted, apart)
            wanted += pace
            e = _bytes_unit(e, scale, a + place, x)
            f = _bytes_unit(f, scale + 64, b + place, x)
            g = _bytes_unit(g, scale + 128, c + place, x)
            h = _bytes_unit(h, scale + 192, d + place, x)
            place, x, scale = place + 64, x + 128, scale + 8
        if count % 2 != 0:
            e = _bytes_half(e, scale, a + place, x)
            f = _bytes_half(f, scale + 64, b + place, x)
            g = _bytes_half(g, scale + 128, c + place, x)
            h = _bytes_half(h, scale + 192, d + place, x)
    e, f, g, h = fma(offset, i, e), fma(offset, j, f), fma(offset, k, g), fma(offset, m, h)
    return total(e), total(f), total(g), total(h)


@device
def _int4(
    matrix: int, a: int, b: int, c: int, d: int, arguments: int, ahead: int, scratch: int
) -> Four:
    e, f, g, h = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    i, j, k, m = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    groups, group = load_i64(matrix + PADDED) // 32, load_i64(matrix + GROUP)
    place, x = load_i64(matrix + HEADER_BYTES), load_i64(arguments + DIGITS)
    x_scales, x_sums = load_i64(arguments + SCALES), load_i64(arguments + SUMS)
    minima, parts = minima_of(matrix), high_nibble_scales()
    offset = splat(1.0 if minima != 0 else -8.0)
    apart, pace, turn = _order(matrix, 16)
    later = a + ahead
    for _ in range(0, place, 64):
        _ask(later, apart)
        later += pace
    wanted = a + place + 16 * (groups - turn)
    for block in range(0, groups, 16):
        left, v, w = groups - block, load(x_scales + 4 * block), load(x_sums + 4 * block)
        i = join_scales(group, minima, a, block, left, v, w, parts, i, scratch)
        j = join_scales(group, minima, b, block, left, v, w, parts, j, scratch + 64)
        k = join_scales(group, minima, c, block, left, v, w, parts, k, scratch + 128)
        m = join_scales(group, minima, d, block, left, v, w, parts, m, scratch + 192)
        if block == turn:
            wanted = later
        count, scale = min(16, left), scratch
        for _ in range(0, count - 2, 4):
            _ask(wanted, apart)
            wanted += pace
            e = _nibbles_unit(e, scale, a + place, x)
            f = _nibbles_unit(f, scale + 64, b + place, x)
            g = _nibbles_unit(g, scale + 128, c + place, x)
            h = _nibbles_unit(h, scale + 192, d + place, x)
            place, x, scale = place + 64, x + 256, scale + 16
        if count % 4 != 0:
            e = _nibbles_half(e, scale, a + place, x)
            f = _nibbles_half(f, scale + 64, b + place, x)
            g = _nibbles_half(g, scale + 128, c + place, x)
            h = _nibbles_half(h, scale + 192, d + place, x)
    e, f, g, h = fma(offset, i, e), fma(offset, j, f), fma(offset, k, g), fma(offset, m, h)
    return total(e), total(f), total(g), total(h)
