"""Selection: from a vector to its active list (`active_list`), in ascending order of channels.

A static threshold per channel serves CHESS, CATS, TEAL and centred gates (a factor on all of them
may be guessed from the vector, `threshold_factor`); top-k of this token's scores serves quantile
rules and LaRoSA; N of every M the N:M methods. All is compared by magnitude, and NaN is larger than
anything, so that what is wrong shows in the result. One thread selects: a merge of several lists
would cost a barrier, and no less than it saves.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.active_list import FIRST
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.simd.compaction import (
    append_above,
    append_at_least,
    append_between,
    append_largest,
    count_at_least,
    largest_magnitude,
    store_magnitude,
)
from sparity_edge.kernels.simd.memory import (
    load,
    load_i32,
    load_i64,
    load_integers,
    store_i32,
    store_i64,
)
from sparity_edge.kernels.simd.vectors import mul, splat, sub
from sparity_edge.kernels.sparse.threshold_factor import factor_of, factor_of_gain
from sparity_edge.kernels.words import Words

# x - CENTRE (none at address 0), SIZE channels of it, to the list ACTIVE.
SELECT = Words("x centre size active")
SELECT_THRESHOLD = SELECT.plus("thresholds coefficients exponent")
SELECT_BY_SCORE = SELECT.plus("weights")
SELECT_TOP = SELECT_BY_SCORE.plus("count")
SELECT_N_OF_M = SELECT_BY_SCORE.plus("n m")
GROUPS_IN_CHUNK = 64
LARGEST_BITS = 0x7FFFFFFF
RANGE = 12 << 23  # of bits: a factor of 4096


@device
def _centred(arguments: int, i: int) -> Any:
    """x - centre, channels i..i+15."""
    x, centre = load_i64(arguments + SELECT.x), load_i64(arguments + SELECT.centre)
    if centre == 0:
        return load(x + 4 * i)
    return sub(load(x + 4 * i), load(centre + 4 * i))


@device
def _score(arguments: int, i: int) -> Any:
    """(x - centre) * weight, channels i..i+15."""
    weights = load_i64(arguments + SELECT_BY_SCORE.weights)
    if weights == 0:
        return _centred(arguments, i)
    return mul(_centred(arguments, i), load(weights + 4 * i))


@Kernel(SELECT_THRESHOLD)
def select_threshold(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Channels whose |x - centre| is larger than their threshold times the vector's factor."""
    size, active = load_i64(arguments + SELECT.size), load_i64(arguments + SELECT.active)
    thresholds = load_i64(arguments + SELECT_THRESHOLD.thresholds)
    x, centre = load_i64(arguments + SELECT.x), load_i64(arguments + SELECT.centre)
    of_vector = factor_of(x, centre, size, load_i64(arguments + SELECT_THRESHOLD.coefficients))
    factor = splat(of_vector * factor_of_gain(load_i64(arguments + SELECT_THRESHOLD.exponent)))
    place = active + FIRST
    for i in range(0, size, 16):
        value = _centred(arguments, i)
        place += 4 * append_above(place, i, value, mul(load(thresholds + 4 * i), factor), size - i)
    store_i64(active, (place - active - FIRST) // 4)


@device
def _count_at_least(values: int, count: int, least: int) -> int:
    """How many of `count` int32 are at least `least`."""
    found = 0
    for i in range(0, count, 16):
        found += count_at_least(load_integers(values + 4 * i), least, count - i)
    return found


@device
def _keep_between(values: int, count: int, least: int, most: int) -> int:
    """Drop values outside of least..most, in place; returns how many are left."""
    place = values
    for i in range(0, count, 16):
        place += 4 * append_between(place, load_integers(values + 4 * i), least, most, count - i)
    return (place - values) // 4


@device
def kth_largest(values: int, count: int, k: int, most: int) -> int:
    """The k-th largest of int32 `values`, which are overwritten.

    Halves the range of values, not the set, but drops what has fallen out of the range. Nearly
    always the answer lies within a factor of 4096 of the largest, which saves the halvings that
    would find its exponent while nothing falls out.

    Args:
        values: the address of `count` non-negative int32.
        count: at least k.
        k: from 1 on.
        most: the largest of the values, or more.
    """
    least = max(0, most - RANGE)
    above = _count_at_least(values, count, least)
    if above < k:
        least, most, k = 0, least - 1, k - above
    count = _keep_between(values, count, least, most)
    while least < most:
        middle = least + (most - least + 1) // 2
        above = _count_at_least(values, count, middle)
        if above >= k:
            least = middle
        else:
            most = middle - 1
            k -= above
        count = _keep_between(values, count, least, most)
    return least


@Kernel(SELECT_TOP)
def select_top(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """The COUNT channels of largest |x - centre| * weight, of equals the first; all if it is more.

    Needs 8 * (SIZE + 16) bytes of scratch.
    """
    size, active = load_i64(arguments + SELECT.size), load_i64(arguments + SELECT.active)
    k = min(size, max(0, load_i64(load_i64(arguments + SELECT_TOP.count))))
    store_i64(active, k)
    if k == 0:
        return
    scores, copy = scratch, scratch + 4 * ((size + 15) // 16 * 16)
    most = 0
    for i in range(0, size, 16):
        value = _score(arguments, i)
        store_magnitude(scores + 4 * i, value)
        store_magnitude(copy + 4 * i, value)
        if i + 16 <= size:
            most = max(most, largest_magnitude(value))
    for i in range(size // 16 * 16, size):
        most = max(most, load_i32(scores + 4 * i))
    least = kth_largest(copy, size, k, most)
    place = active + FIRST
    surplus = _count_at_least(scores, size, least) - k
    if surplus == 0:
        for i in range(0, size, 16):
            value = load_integers(scores + 4 * i)
            place += 4 * append_at_least(place, i, value, least, size - i)
        return
    equals = k - _count_at_least(scores, size, least + 1) if least < LARGEST_BITS else k
    for i in range(size):
        value = load_i32(scores + 4 * i)
        if value > least or (value == least and equals > 0):
            store_i32(place, i)
            place += 4
            equals -= value == least


@device
def rank_of(values: int, i: int, count: int) -> int:
    """How many of `count` int32 go before number i: larger ones, and equal ones before it."""
    value = load_i32(values + 4 * i)
    rank = _count_at_least(values, i, value)
    if value < LARGEST_BITS:
        rank += _count_at_least(values + 4 * i, count - i, value + 1)
    return rank


@Kernel(SELECT_N_OF_M)
def select_n_of_m(arguments: int, chunk: int, scratch: int) -> None:
    """The N channels of largest |x - centre| * weight in each M neighbours; first of equals.

    A chunk is GROUPS_IN_CHUNK such groups: where a group's channels go is known beforehand.
    """
    size, active = load_i64(arguments + SELECT.size), load_i64(arguments + SELECT.active)
    kept, of = load_i64(arguments + SELECT_N_OF_M.n), load_i64(arguments + SELECT_N_OF_M.m)
    whole = size // of
    groups = (size + of - 1) // of
    if chunk == 0:
        store_i64(active, whole * kept + min(kept, size - whole * of))
    stop = min(groups, (chunk + 1) * GROUPS_IN_CHUNK)
    end = active + FIRST + 4 * stop * kept
    for group in range(chunk * GROUPS_IN_CHUNK, stop):
        first, place = group * of, active + FIRST + 4 * group * kept
        count = min(of, size - first)
        if of <= 16:
            store_magnitude(scratch, _score(arguments, first))
            # Whole vectors are written: not over the end, where another chunk begins.
            target = place if place + 64 <= end else scratch + 64
            found = append_largest(target, first, load_integers(scratch), kept, count)
            if target != place:
                for i in range(found):
                    store_i32(place + 4 * i, load_i32(target + 4 * i))
            continue
        for i in range(0, count, 16):
            store_magnitude(scratch + 4 * i, _score(arguments, first + i))
        for i in range(count):
            if rank_of(scratch, i, count) < kept:
                store_i32(place, first + i)
                place += 4
