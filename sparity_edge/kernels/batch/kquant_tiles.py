"""Rows of K-quants (int4k, int6k) times a few tokens: what they add to the loops of `few`."""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.batch.few import (
    ROW_SCALES_AT,
    WEIGHTS_AT,
    Few,
    digits_of,
    grouped_rows,
    scales_of,
)
from sparity_edge.kernels.batch.register_tiles import (
    SCALES,
    TOTAL,
    VECTORS,
    W_ROW,
    W_VECTOR,
    fours_by_four,
    fours_by_one,
    fours_by_two,
    half_sixes_by_one,
    sixes_by_four,
    sixes_by_one,
    sixes_by_two,
    store_weights,
)
from sparity_edge.kernels.decode.dot_arguments import X_BLOCK
from sparity_edge.kernels.decode.kquant_dots import (
    FOUR_SCALES,
    FOURS,
    SIX_SCALES,
    SIXES,
    X_FLOATS,
    int4k_scales,
    int6k_factors,
)
from sparity_edge.kernels.decode.vmm import put
from sparity_edge.kernels.kernel import device, inlined
from sparity_edge.kernels.simd.byte_dots import high_nibbles, low_nibbles
from sparity_edge.kernels.simd.conversions import load_i8
from sparity_edge.kernels.simd.kquants import low_sixes, top_sixes
from sparity_edge.kernels.simd.memory import load, load_bytes, store
from sparity_edge.kernels.simd.vectors import total


@inlined
def _by_tokens(
    by_four: Any, by_two: Any, by_one: Any, few: Few, block: int, n: int, scratch: int, totals: int
) -> None:
    """Add a block of two rows that has been unpacked, n vectors at a time."""
    w, s = scratch + WEIGHTS_AT, scratch + ROW_SCALES_AT
    x, y, i = block * X_BLOCK, block * X_FLOATS, 0
    while i + 4 <= few.tokens:
        by_four(
            totals, w, n, s, digits_of(few, i, x), digits_of(few, i + 1, x),
            digits_of(few, i + 2, x), digits_of(few, i + 3, x), scales_of(few, i, y),
            scales_of(few, i + 1, y), scales_of(few, i + 2, y), scales_of(few, i + 3, y),
        )  # fmt: skip
        i, totals = i + 4, totals + 4 * TOTAL
    if i + 2 <= few.tokens:
        by_two(
            totals, w, n, s, digits_of(few, i, x), digits_of(few, i + 1, x), scales_of(few, i, y),
            scales_of(few, i + 1, y),
        )  # fmt: skip
        i, totals = i + 2, totals + 2 * TOTAL
    if i < few.tokens:
        by_one(totals, w, n, s, digits_of(few, i, x), scales_of(few, i, y))


@inlined
def _finish(totals: int, row: int, own: int, output: int, scratch: int) -> None:  # noqa: ARG001
    put(own, output, total(load(totals)))


# --- int4k ------------------------------------------------------------------------------------


@inlined
def _widen_fours(numbers: int, nbytes: int, to: int) -> None:
    for line in range(0, nbytes, 64):
        packed = load_bytes(numbers + line)
        place = to + line // 32 * W_VECTOR
        store_weights(place, low_nibbles(packed))
        store_weights(place + W_VECTOR, high_nibbles(packed))


@inlined
def _widen_int4k(few: Few, row: int, block: int, whole: bool, to: int, scales: int) -> None:
    """A block of a row (or half of one) and its scales as tiles read them."""
    _widen_fours(row + block * FOURS, FOURS if whole else FOURS // 2, to)
    scale, least = int4k_scales(row + few.scales_at + block * FOUR_SCALES, whole)
    store(scales, scale)
    store(scales + 64, least)


@inlined
def _add_int4k(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    w, s, n = scratch + WEIGHTS_AT, scratch + ROW_SCALES_AT, few.vectors
    if block < few.whole:
        _widen_int4k(few, row, block, True, w, s)
        _widen_int4k(few, other, block, True, w + W_ROW, s + SCALES)
    else:
        _widen_int4k(few, row, block, False, w, s)
        _widen_int4k(few, other, block, False, w + W_ROW, s + SCALES)
        n //= 2
    _by_tokens(fours_by_four, fours_by_two, fours_by_one, few, block, n, scratch, totals)


@device
def int4k_rows(few: Few, first: int, last: int, scratch: int) -> None:
    """Outputs first..last-1 of a matrix in int4k."""
    grouped_rows(_add_int4k, _finish, few, first, last, scratch)


# --- int6k ------------------------------------------------------------------------------------


@inlined
def _widen_sixes(numbers: int, to: int) -> None:
    """Four vectors from three cache lines."""
    a, b, c = load_bytes(numbers), load_bytes(numbers + 64), load_bytes(numbers + 128)
    store_weights(to, low_sixes(a))
    store_weights(to + W_VECTOR, low_sixes(b))
    store_weights(to + 2 * W_VECTOR, low_sixes(c))
    store_weights(to + 3 * W_VECTOR, top_sixes(a, b, c))


@inlined
def _widen_int6k(few: Few, row: int, block: int, whole: bool, to: int, scales: int) -> None:
    """A block of a row (or half of one) and its scales as tiles read them."""
    _widen_sixes(row + block * SIXES, to)
    packed = row + few.scales_at + block * SIX_SCALES
    store(scales, int6k_factors(packed, whole))
    store(scales + 64, load_i8(packed))
    if whole:
        _widen_sixes(row + block * SIXES + SIXES // 2, to + VECTORS // 2 * W_VECTOR)
        store(scales + 128, load_i8(packed + 16))


@inlined
def _add_int6k(few: Few, row: int, other: int, block: int, scratch: int, totals: int) -> None:
    w, s, n = scratch + WEIGHTS_AT, scratch + ROW_SCALES_AT, few.vectors // 2
    if block < few.whole:
        _widen_int6k(few, row, block, True, w, s)
        _widen_int6k(few, other, block, True, w + W_ROW, s + SCALES)
        _by_tokens(sixes_by_four, sixes_by_two, sixes_by_one, few, block, n, scratch, totals)
        return
    _widen_int6k(few, row, block, False, w, s)
    _widen_int6k(few, other, block, False, w + W_ROW, s + SCALES)
    for i in range(few.tokens):  # one half block a row
        x, y = digits_of(few, i, block * X_BLOCK), scales_of(few, i, block * X_FLOATS)
        half_sixes_by_one(totals + i * TOTAL, w, n, s, x, y)


@device
def int6k_rows(few: Few, first: int, last: int, scratch: int) -> None:
    """Outputs first..last-1 of a matrix in int6k."""
    grouped_rows(_add_int6k, _finish, few, first, last, scratch)
