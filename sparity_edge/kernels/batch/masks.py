"""Masks: many tokens at once with the channels set to zero that decoding would skip.

Nothing is saved by it: a matrix product over many tokens reads every weight anyhow. It is how the
quality of a plan is measured at the speed of a prefill, and what `--sparse-prefill` does.
"""

from __future__ import annotations

from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.simd.compaction import store_magnitude
from sparity_edge.kernels.simd.memory import (
    load,
    load_f32,
    load_i32,
    load_i64,
    store,
    store_f32,
    store_i64,
)
from sparity_edge.kernels.simd.vectors import mul, sub
from sparity_edge.kernels.sparse.select import LARGEST_BITS, kth_largest, rank_of
from sparity_edge.kernels.sparse.threshold_factor import factor_of, factor_of_gain
from sparity_edge.kernels.words import Words

CENTRED = Words("x x_stride centre size")
SPARSIFY = CENTRED.plus("out out_stride counts")
BY_THRESHOLD = SPARSIFY.plus("thresholds coefficients exponents exponent_stride")
BY_SIZE = SPARSIFY.plus("weights kept")
BY_NEIGHBOURS = BY_SIZE.plus("neighbours")
SUBTRACT = CENTRED.plus("out out_stride")
TALLY = Words("lists strides tallies tokens size")


@device
def _centred(arguments: int, row: int, out: int) -> None:
    """x - centre of one row to `out`; the zeros after a row stay zeros."""
    x = load_i64(arguments + CENTRED.x) + row * load_i64(arguments + CENTRED.x_stride)
    centre = load_i64(arguments + CENTRED.centre)
    for i in range(0, 4 * load_i64(arguments + CENTRED.size), 64):
        if centre != 0:
            store(out + i, sub(load(x + i), load(centre + i)))
        else:
            store(out + i, load(x + i))


@Kernel(BY_THRESHOLD)
def sparsify_threshold(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Row `chunk` of x - centre where it is larger than the scaled threshold, or NaN; else zero."""
    out = load_i64(arguments + SPARSIFY.out) + chunk * load_i64(arguments + SPARSIFY.out_stride)
    thresholds = load_i64(arguments + BY_THRESHOLD.thresholds)
    _centred(arguments, chunk, out)
    coefficients = load_i64(arguments + BY_THRESHOLD.coefficients)
    factor = factor_of(out, 0, load_i64(arguments + CENTRED.size), coefficients)
    exponent = load_i64(arguments + BY_THRESHOLD.exponents)
    exponent += chunk * load_i64(arguments + BY_THRESHOLD.exponent_stride)
    factor *= factor_of_gain(exponent)
    count = 0
    for i in range(0, 4 * load_i64(arguments + CENTRED.size), 4):
        value = load_f32(out + i)
        dropped = abs(value) <= load_f32(thresholds + i) * factor
        store_f32(out + i, 0.0 if dropped else value)
        count += 0 if dropped else 1
    store_i64(load_i64(arguments + SPARSIFY.counts) + 8 * chunk, count)


@Kernel(BY_SIZE)
def sparsify_top(arguments: int, chunk: int, scratch: int) -> None:
    """Row `chunk` of x - centre, its KEPT channels of largest |x - centre| * weight; else zero.

    Needs 8 * (SIZE + 32) bytes of scratch.
    """
    size, weights = load_i64(arguments + CENTRED.size), load_i64(arguments + BY_SIZE.weights)
    out = load_i64(arguments + SPARSIFY.out) + chunk * load_i64(arguments + SPARSIFY.out_stride)
    _centred(arguments, chunk, out)
    scores, copy = scratch, scratch + 4 * ((size + 15) // 16 * 16)
    for i in range(0, 4 * size, 64):
        value = load(out + i) if weights == 0 else mul(load(out + i), load(weights + i))
        store_magnitude(scores + i, value)
        store_magnitude(copy + i, value)
    kept = min(size, max(1, load_i64(load_i64(arguments + BY_SIZE.kept))))
    least, equals = kth_largest(copy, size, kept, LARGEST_BITS), kept
    for i in range(0, 4 * size, 4):
        equals -= load_i32(scores + i) > least
    for i in range(0, 4 * size, 4):
        score = load_i32(scores + i)
        if score < least or (score == least and equals <= 0):
            store_f32(out + i, 0.0)
        equals -= score == least
    store_i64(load_i64(arguments + SPARSIFY.counts) + 8 * chunk, kept)


@Kernel(BY_NEIGHBOURS)
def sparsify_n_of_m(arguments: int, chunk: int, scratch: int) -> None:
    """Row `chunk` of x - centre, of each NEIGHBOURS channels the KEPT of largest score; else zero.

    Scores are |x - centre| * weight, of equals the first stays.
    """
    size, weights = load_i64(arguments + CENTRED.size), load_i64(arguments + BY_SIZE.weights)
    out = load_i64(arguments + SPARSIFY.out) + chunk * load_i64(arguments + SPARSIFY.out_stride)
    _centred(arguments, chunk, out)
    kept = load_i64(load_i64(arguments + BY_SIZE.kept))
    of = load_i64(arguments + BY_NEIGHBOURS.neighbours)
    found = 0
    for first in range(0, size, of):
        row, count = out + 4 * first, min(of, size - first)
        for i in range(0, 4 * count, 64):
            value = load(row + i)
            if weights != 0:
                value = mul(value, load(weights + 4 * first + i))
            store_magnitude(scratch + i, value)
        for i in range(count):
            if rank_of(scratch, i, count) >= kept:
                store_f32(row + 4 * i, 0.0)
        found += min(kept, count)
    store_i64(load_i64(arguments + SPARSIFY.counts) + 8 * chunk, found)


@Kernel(SUBTRACT)
def subtract(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Row `chunk` of OUT = x - centre."""
    out = load_i64(arguments + SUBTRACT.out) + chunk * load_i64(arguments + SUBTRACT.out_stride)
    _centred(arguments, chunk, out)


@Kernel(TALLY)
def tally(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """TALLIES[i] = the sum of TOKENS int64 counts that stand STRIDES[i] bytes apart at LISTS[i]."""
    lists, tallies = load_i64(arguments + TALLY.lists), load_i64(arguments + TALLY.tallies)
    strides = load_i64(arguments + TALLY.strides)
    for i in range(0, 8 * load_i64(arguments + TALLY.size), 8):
        count, place = 0, load_i64(lists + i)
        for _ in range(load_i64(arguments + TALLY.tokens)):
            count += load_i64(place)
            place += load_i64(strides + i)
        store_i64(tallies + i, count)
