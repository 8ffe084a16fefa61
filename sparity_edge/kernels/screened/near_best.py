"""Selection behind a screen: the outputs whose coarse scores come near the best ones.

How far scores may be off is measured on the token itself: some outputs, the probes, have been
computed exactly, and the root mean square of their errors is sigma. An output is listed if its
score is not below both limits: the best score less BEST sigma, and the COUNT-th best less LEAST
sigma. Required outputs are listed whatever their scores, and do not count among the best. One
thread selects.

The COUNT-th best score is taken of the maxima of groups of 16 scores. That is never above the true
one (each of COUNT groups has a score that large), and nearly always the same.
"""

from __future__ import annotations

import math

from sparity_edge.kernels.active_list import FIRST
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.simd.compaction import append_not_below, store_ordered
from sparity_edge.kernels.simd.memory import (
    load,
    load_f32,
    load_i32,
    load_i64,
    store_f32,
    store_i32,
    store_i64,
)
from sparity_edge.kernels.simd.vectors import keep_lanes, maximum, splat
from sparity_edge.kernels.sparse.active_rows import channel
from sparity_edge.kernels.sparse.select import kth_largest
from sparity_edge.kernels.words import Words

NEAR_BEST = Words("scores size exact probes required count best least active")
GROUP = 16  # scores of which the largest is taken
OFFSET = 1 << 30  # of the integers of `store_ordered`
LEAST_ORDERED = -0x7F800000  # the lowest finite float32, in that order


def scratch_bytes(size: int) -> int:
    """Scratch memory for so many scores."""
    return 4 * (-(-size // (16 * GROUP)) * 16) + 128


@device
def _error(arguments: int) -> float:
    """The root mean square of score - exact over the probes."""
    scores, exact = load_i64(arguments + NEAR_BEST.scores), load_i64(arguments + NEAR_BEST.exact)
    probes = load_i64(arguments + NEAR_BEST.probes)
    squares = 0.0
    for position in range(load_i64(probes)):
        place = 4 * channel(probes, position)
        error = load_f32(scores + place) - load_f32(exact + place)
        squares += error * error
    return math.sqrt(squares / max(1, load_i64(probes)))


@device
def _require(arguments: int, score: float) -> None:
    """Give every required output this score."""
    scores = load_i64(arguments + NEAR_BEST.scores)
    required = load_i64(arguments + NEAR_BEST.required)
    for position in range(load_i64(required)):
        store_f32(scores + 4 * channel(required, position), score)


@device
def _score_of(number: int, scratch: int) -> float:
    """The largest score that `store_ordered` does not put above `number`, but for one bit."""
    ordered = (number - OFFSET) << 1
    if ordered < LEAST_ORDERED:
        return -math.inf
    store_i32(scratch, ordered if ordered >= 0 else ordered ^ 0x7FFFFFFF)
    return load_f32(scratch)


@device
def _limit(arguments: int, sigma: float, scratch: int) -> float:
    """The least score that is listed."""
    scores, size = load_i64(arguments + NEAR_BEST.scores), load_i64(arguments + NEAR_BEST.size)
    maxima, groups, most = scratch + 64, 0, 0
    for first in range(0, size, 16 * GROUP):
        peaks = splat(-math.inf)
        for i in range(first, min(first + 16 * GROUP, size), 16):
            peaks = maximum(keep_lanes(load(scores + 4 * i), 0, size - i), peaks)
        place = maxima + 4 * groups
        store_ordered(place, peaks)
        for lane in range(16):
            most = max(most, load_i32(place + 4 * lane))
        groups += 16
    best = _score_of(most, scratch)
    count = load_i64(load_i64(arguments + NEAR_BEST.count))
    kth = -math.inf
    if count <= groups:
        kth = _score_of(kth_largest(maxima, groups, max(1, count), most), scratch)
    return min(
        best - load_f32(arguments + NEAR_BEST.best) * sigma,
        kth - load_f32(arguments + NEAR_BEST.least) * sigma,
    )


@Kernel(NEAR_BEST)
def select_near_best(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Outputs whose SCORES come near the best ones, and all that are REQUIRED."""
    sigma = _error(arguments)
    _require(arguments, -math.inf)
    limit = splat(_limit(arguments, sigma, scratch))
    _require(arguments, math.inf)
    scores, size = load_i64(arguments + NEAR_BEST.scores), load_i64(arguments + NEAR_BEST.size)
    active = load_i64(arguments + NEAR_BEST.active)
    place = active + FIRST
    for i in range(0, size, 16):
        place += 4 * append_not_below(place, i, load(scores + 4 * i), limit, size - i)
    store_i64(active, (place - active - FIRST) // 4)
