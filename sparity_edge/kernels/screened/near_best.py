"""Selection behind a screen: outputs that may be among the best, judged by scores and exact values.

Of every row it is known how large the errors of its scores are beside those of others. How large
they are for this token is measured: some outputs, the probes, have been computed exactly, and the
root mean square of error / error of the row is the spread. `select_highest` lists the outputs of
the highest scores and those that are required; once these have been computed exactly,
`select_near_best` lists them and every other whose score, with a margin of so many spreads, reaches
the best of them (BEST) or the COUNT-th best (LEAST). Required outputs do not count among the best.
One thread selects.

The scores of the first list are taken by the maxima of 16 scores each. The COUNT-th largest of
those is never above the COUNT-th best score, and nearly always the same.
"""

from __future__ import annotations

import math

from sparity_edge.kernels.active_list import FIRST
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.screened.lane_rows import TALL
from sparity_edge.kernels.simd.compaction import append_not_below, store_ordered
from sparity_edge.kernels.simd.conversions import load_i8, load_i8_alone
from sparity_edge.kernels.simd.memory import (
    load,
    load_f32,
    load_i32,
    load_i64,
    store_f32,
    store_i32,
    store_i64,
)
from sparity_edge.kernels.simd.vectors import fma, largest, maximum, splat, sub
from sparity_edge.kernels.sparse.active_rows import channel
from sparity_edge.kernels.sparse.select import kth_largest
from sparity_edge.kernels.words import Words

HIGHEST = Words("scores size peaks errors exact probes required count spare spread active")
NEAR_BEST = Words("scores size errors first required count best least spread active")
OFFSET = 1 << 30  # of the integers of `store_ordered`
LEAST_ORDERED = -0x7F800000  # the lowest finite float32, in that order


def scratch_bytes(size: int) -> int:
    """Scratch memory for so many scores."""
    return 4 * (size + 16) + 128


@device
def _spread(arguments: int) -> float:
    """The root mean square of (score - exact) / error of the row over the probes."""
    scores, exact = load_i64(arguments + HIGHEST.scores), load_i64(arguments + HIGHEST.exact)
    probes, errors = load_i64(arguments + HIGHEST.probes), load_i64(arguments + HIGHEST.errors)
    squares = 0.0
    for position in range(load_i64(probes)):
        output = channel(probes, position)
        error = load_f32(scores + 4 * output) - load_f32(exact + 4 * output)
        error /= load_i8_alone(errors + output)
        squares += error * error
    return math.sqrt(squares / max(1, load_i64(probes)))


@device
def _mark(scores: int, listed: int) -> None:
    """Let every listed output have the score inf, which no limit excludes."""
    for position in range(load_i64(listed)):
        store_f32(scores + 4 * channel(listed, position), math.inf)


@device
def _score_of(number: int, scratch: int) -> float:
    """The largest score that `store_ordered` does not put above `number`, but for one bit."""
    ordered = (number - OFFSET) << 1
    if ordered < LEAST_ORDERED:
        return -math.inf
    store_i32(scratch, ordered if ordered >= 0 else ordered ^ 0x7FFFFFFF)
    return load_f32(scratch)


@device
def _most(numbers: int, count: int) -> int:
    """The largest of `count` numbers that `store_ordered` wrote; 0 if there are none."""
    most = 0
    for position in range(count):
        most = max(most, load_i32(numbers + 4 * position))
    return most


@device
def _kth(numbers: int, count: int, k: int, scratch: int) -> float:
    """The k-th largest of `count` such numbers, which are overwritten; -inf if there are less."""
    if k > count:
        return -math.inf
    return _score_of(kth_largest(numbers, count, k, _most(numbers, count)), scratch)


@Kernel(HIGHEST)
def select_highest(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """The outputs of the highest SCORES, more than COUNT, and all that are REQUIRED."""
    scores, size = load_i64(arguments + HIGHEST.scores), load_i64(arguments + HIGHEST.size)
    peaks, required = load_i64(arguments + HIGHEST.peaks), load_i64(arguments + HIGHEST.required)
    store_f32(load_i64(arguments + HIGHEST.spread), _spread(arguments))
    span = 16 * TALL
    groups = (size + span - 1) // span
    for group in range(groups):
        store_ordered(scratch + 64 + 64 * group, load(peaks + 64 * group))
    wanted = load_i64(load_i64(arguments + HIGHEST.count)) + load_i64(arguments + HIGHEST.spare)
    wanted += load_i64(required)
    least = _kth(scratch + 64, 16 * groups, wanted, scratch)
    limit, any_required = splat(least), load_i64(required) > 0
    _mark(scores, required)
    active = load_i64(arguments + HIGHEST.active)
    place = active + FIRST
    for group in range(groups):
        if any_required or not largest(load(peaks + 64 * group)) < least:
            for i in range(span * group, min(span * (group + 1), size), 16):
                place += 4 * append_not_below(place, i, load(scores + 4 * i), limit, size - i)
    store_i64(active, (place - active - FIRST) // 4)


@device
def _exact_values(arguments: int, numbers: int) -> int:
    """The exact values of the first list without what is required, ordered; returns how many."""
    scores, first = load_i64(arguments + NEAR_BEST.scores), load_i64(arguments + NEAR_BEST.first)
    required = load_i64(arguments + NEAR_BEST.required)
    count, at = 0, 0
    for position in range(load_i64(first)):
        output = channel(first, position)
        if at < load_i64(required) and channel(required, at) == output:
            at += 1
        else:
            store_ordered(numbers + 4 * count, splat(load_f32(scores + 4 * output)))
            count += 1
    return count


@Kernel(NEAR_BEST)
def select_near_best(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Outputs that may be among the best, and all of the FIRST list, whose SCORES are exact."""
    scores, size = load_i64(arguments + NEAR_BEST.scores), load_i64(arguments + NEAR_BEST.size)
    spread, numbers = load_f32(load_i64(arguments + NEAR_BEST.spread)), scratch + 64
    count = _exact_values(arguments, numbers)
    best = splat(-_score_of(_most(numbers, count), scratch))
    wanted = max(1, load_i64(load_i64(arguments + NEAR_BEST.count)))
    kth = splat(-_kth(numbers, count, wanted, scratch))
    of_best = splat(spread * load_f32(arguments + NEAR_BEST.best))
    of_kth = splat(spread * load_f32(arguments + NEAR_BEST.least))
    _mark(scores, load_i64(arguments + NEAR_BEST.first))
    errors = load_i64(arguments + NEAR_BEST.errors)
    active = load_i64(arguments + NEAR_BEST.active)
    place = active + FIRST
    for i in range(0, size, 16):
        error = load_i8(errors + i)
        below = maximum(fma(of_best, error, best), fma(of_kth, error, kth))
        limit = sub(splat(0.0), below)
        place += 4 * append_not_below(place, i, load(scores + 4 * i), limit, size - i)
    store_i64(active, (place - active - FIRST) // 4)
