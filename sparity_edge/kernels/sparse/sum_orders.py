"""From the order in which bytes of four rows are summed (`integer_axpy`) to that of the columns."""

from __future__ import annotations

from typing import Any

from numba.core import types

from sparity_edge.kernels.simd.ir import FLOATS, concatenate, define, load_from, shuffle, store_to


def _natural(builder: Any, sums: list[Any]) -> list[Any]:
    """From order of quarters to that of the bytes: quarter q of vector k becomes k of q."""
    result = []
    for quarter in range(0, 16, 4):
        lanes = [quarter + i for i in range(4)] + [16 + quarter + i for i in range(4)]
        low = shuffle(builder, sums[0], sums[1], lanes)
        high = shuffle(builder, sums[2], sums[3], lanes)
        result.append(concatenate(builder, [low, high]))
    return result


def _in_order(builder: Any, address: Any, count: int) -> None:
    vectors = [load_from(builder, address, FLOATS, 64 * index) for index in range(count)]
    ordered = _natural(builder, vectors[:4])
    if count == 8:  # 32 columns share 16 bytes, low nibbles first
        high = _natural(builder, vectors[4:])
        ordered = [each for pair in zip(ordered, high) for each in pair]
    for index, each in enumerate(ordered):
        store_to(builder, each, address, 64 * index)


@define(types.none, types.int64)
def natural8(builder: Any, address: Any) -> Any:
    """Put 64 float32 into the order of columns."""
    _in_order(builder, address, 4)


@define(types.none, types.int64)
def natural16(builder: Any, address: Any) -> Any:
    """Put 128 float32 into the order of columns."""
    _in_order(builder, address, 8)
