"""The union of active channels of several tokens, as one active list.

Tokens that decode together read the weights of a channel once for all, or not if none needs it.
Where nearly all are needed, all are read: streaming is faster than gathering.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.active_list import FIRST
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.simd.compaction import append_above
from sparity_edge.kernels.simd.memory import load, load_i64, store_i64
from sparity_edge.kernels.simd.vectors import add, maximum, splat, sub
from sparity_edge.kernels.words import Words

UNION = Words("values stride tokens size active most_listed")


@device
def _magnitude(arguments: int, i: int) -> Any:
    """The sum of the magnitudes of channels i..i+15 over tokens; NaN stays NaN."""
    place, result = load_i64(arguments + UNION.values) + 4 * i, splat(0.0)
    for _ in range(load_i64(arguments + UNION.tokens)):
        value = load(place)
        result = add(result, maximum(value, sub(splat(0.0), value)))
        place += load_i64(arguments + UNION.stride)
    return result


@device
def _list_larger(arguments: int, least: float) -> int:
    """List the channels whose magnitude is larger than `least`; returns how many there are."""
    size, place = load_i64(arguments + UNION.size), load_i64(arguments + UNION.active) + FIRST
    for i in range(0, size, 16):
        place += 4 * append_above(place, i, _magnitude(arguments, i), splat(least), size - i)
    return (place - load_i64(arguments + UNION.active) - FIRST) // 4


@Kernel(UNION)
def list_union(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """The channels that are not zero in one row or more; all if they are more than MOST_LISTED."""
    count = _list_larger(arguments, 0.0)
    if count > load_i64(arguments + UNION.most_listed):
        count = _list_larger(arguments, -1.0)
    store_i64(load_i64(arguments + UNION.active), count)
