"""Masks: many tokens at once with the channels set to zero that decoding would skip.

Nothing is saved by it: a matrix product over many tokens reads every weight anyhow. It is how the
quality of a plan is measured at the speed of a prefill, and what `--sparse-prefill` does.
"""

from __future__ import annotations

from sparity_edge.kernels.decode.select import LARGEST_BITS, kth_largest
from sparity_edge.kernels.decode.threshold_factor import factor_of, factor_of_gain
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

X, X_STRIDE, CENTRE, SIZE, OUT, OUT_STRIDE, COUNTS, THRESHOLDS = (8 * word for word in range(8))
WEIGHTS, KEPT = THRESHOLDS, THRESHOLDS + 8
COEFFICIENTS, EXPONENTS, EXPONENT_STRIDE = (THRESHOLDS + 8 * word for word in range(1, 4))
# Arguments of `subtract` and `tally`.
SUM, LISTS, TALLIES, TOKENS = X_STRIDE, X, X_STRIDE, CENTRE


@device
def _centred(arguments: int, row: int, out: int) -> None:
    """x - centre of one row to `out`; the zeros behind a row stay zeros."""
    x = load_i64(arguments + X) + row * load_i64(arguments + X_STRIDE)
    centre = load_i64(arguments + CENTRE)
    for i in range(0, 4 * load_i64(arguments + SIZE), 64):
        if centre != 0:
            store(out + i, sub(load(x + i), load(centre + i)))
        else:
            store(out + i, load(x + i))


@Kernel
def sparsify_threshold(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Row `chunk` of x - centre where it is larger than the scaled threshold, or NaN; else zero."""
    out = load_i64(arguments + OUT) + chunk * load_i64(arguments + OUT_STRIDE)
    thresholds = load_i64(arguments + THRESHOLDS)
    _centred(arguments, chunk, out)
    factor = factor_of(out, 0, load_i64(arguments + SIZE), load_i64(arguments + COEFFICIENTS))
    exponent = load_i64(arguments + EXPONENTS) + chunk * load_i64(arguments + EXPONENT_STRIDE)
    factor *= factor_of_gain(exponent)
    count = 0
    for i in range(0, 4 * load_i64(arguments + SIZE), 4):
        value = load_f32(out + i)
        dropped = abs(value) <= load_f32(thresholds + i) * factor
        store_f32(out + i, 0.0 if dropped else value)
        count += 0 if dropped else 1
    store_i64(load_i64(arguments + COUNTS) + 8 * chunk, count)


@Kernel
def sparsify_top(arguments: int, chunk: int, scratch: int) -> None:
    """Row `chunk` of x - centre, its KEPT channels of largest |x - centre| * weight; else zero.

    Needs 8 * (SIZE + 32) bytes of scratch.
    """
    size, weights = load_i64(arguments + SIZE), load_i64(arguments + WEIGHTS)
    out = load_i64(arguments + OUT) + chunk * load_i64(arguments + OUT_STRIDE)
    _centred(arguments, chunk, out)
    scores, copy = scratch, scratch + 4 * ((size + 15) // 16 * 16)
    for i in range(0, 4 * size, 64):
        value = load(out + i) if weights == 0 else mul(load(out + i), load(weights + i))
        store_magnitude(scores + i, value)
        store_magnitude(copy + i, value)
    kept = min(size, max(1, load_i64(load_i64(arguments + KEPT))))
    least, equals = kth_largest(copy, size, kept, LARGEST_BITS), kept
    for i in range(0, 4 * size, 4):
        equals -= load_i32(scores + i) > least
    for i in range(0, 4 * size, 4):
        score = load_i32(scores + i)
        if score < least or (score == least and equals <= 0):
            store_f32(out + i, 0.0)
        equals -= score == least
    store_i64(load_i64(arguments + COUNTS) + 8 * chunk, kept)


@Kernel
def subtract(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """OUT = x - centre, one row."""
    _centred(arguments, 0, load_i64(arguments + OUT))


@Kernel
def tally(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """TALLIES[i] = the sum of TOKENS int64 counts that stand at LISTS[i]."""
    lists, tallies = load_i64(arguments + LISTS), load_i64(arguments + TALLIES)
    for i in range(0, 8 * load_i64(arguments + SIZE), 8):
        count, place = 0, load_i64(lists + i)
        for token in range(load_i64(arguments + TOKENS)):
            count += load_i64(place + 8 * token)
        store_i64(tallies + i, count)
