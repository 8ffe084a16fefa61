"""GEMV of a screen: four-bit rows that lie side by side, times activations of 8 bits.

Scores only have to tell which outputs are worth computing, so activations are rounded to signed
bytes, 64 of them with one scale: a tenth of the error of four-bit weights. The bytes of the rows
are drawn in packed/lane_rows.py. On 320 inputs the kernel of packed int4 rows, whose blocks are of
512, takes 65 cycles a row, and this one less than memory does (AMD EPYC, Zen 5).
"""

from __future__ import annotations

import math

from sparity_edge.kernels.decode.vmm import LEAD
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.screened.lane_dots import group_dot, store_small
from sparity_edge.kernels.simd.conversions import load_f16
from sparity_edge.kernels.simd.memory import load, load_f32, load_i64, store, store_f32
from sparity_edge.kernels.simd.vectors import (
    add,
    fma,
    keep_lanes,
    largest,
    maximum,
    mul,
    splat,
    sub,
    total,
)
from sparity_edge.kernels.words import Words
from sparity_edge.packed.lane_rows import GROUP, TOGETHER, ZERO

SPLIT_SMALL = Words("x small scales offsets")
LANE_ROWS = Words(
    "rows groups blocks block_bytes number_bytes small scales offsets out size peaks step"
)
TALL = 16  # blocks of which the largest scores are kept, lane by lane
GROUP_BYTES = GROUP * TOGETHER // 2
SCALE_BYTES = 2 * TOGETHER


@Kernel(SPLIT_SMALL)
def split_small(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Group `chunk` of X as signed bytes, its scale, and what ZERO adds to its products."""
    x = load_i64(arguments + SPLIT_SMALL.x) + 4 * GROUP * chunk
    sizes, broken = splat(0.0), splat(0.0)
    for place in range(x, x + 4 * GROUP, 64):
        value = load(place)
        sizes = maximum(maximum(value, sub(splat(0.0), value)), sizes)
        broken = add(broken, mul(value, splat(0.0)))
    most = largest(sizes)
    inverse = splat(127 / most) if most > 0 else splat(0.0)
    small = load_i64(arguments + SPLIT_SMALL.small) + GROUP * chunk
    sums = splat(0.0)
    for part in range(GROUP // 16):
        sums = add(sums, store_small(small + 16 * part, mul(load(x + 64 * part), inverse)))
    # NaN is lost in the comparisons; 0 * x brings it back.
    store_f32(load_i64(arguments + SPLIT_SMALL.scales) + 4 * chunk, most / 127 + total(broken))
    store_f32(load_i64(arguments + SPLIT_SMALL.offsets) + 4 * chunk, ZERO * total(sums))


@Kernel(LANE_ROWS)
def vmm_lane_rows(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """STEP blocks of sixteen outputs, and of each TALL of them the largest in every lane.

    STEP is a multiple of TALL. The lanes beyond SIZE are left out of PEAKS.
    """
    groups, block_bytes = (
        load_i64(arguments + LANE_ROWS.groups),
        load_i64(arguments + LANE_ROWS.block_bytes),
    )
    first = chunk * load_i64(arguments + LANE_ROWS.step)
    last = min(first + load_i64(arguments + LANE_ROWS.step), load_i64(arguments + LANE_ROWS.blocks))
    small = load_i64(arguments + LANE_ROWS.small)
    x_scales = load_i64(arguments + LANE_ROWS.scales)
    offsets = load_i64(arguments + LANE_ROWS.offsets)
    size, peaks = load_i64(arguments + LANE_ROWS.size), load_i64(arguments + LANE_ROWS.peaks)
    peak = splat(-math.inf)
    for block in range(first, last):
        numbers = load_i64(arguments + LANE_ROWS.rows) + block * block_bytes
        scales = numbers + load_i64(arguments + LANE_ROWS.number_bytes)
        sums = splat(0.0)
        for group in range(groups):
            products = group_dot(numbers, small + GROUP * group, numbers + LEAD)
            products = sub(products, splat(load_f32(offsets + 4 * group)))
            scale = mul(load_f16(scales, 16), splat(load_f32(x_scales + 4 * group)))
            sums = fma(products, scale, sums)
            numbers, scales = numbers + GROUP_BYTES, scales + SCALE_BYTES
        store(load_i64(arguments + LANE_ROWS.out) + 64 * block, sums)
        peak = maximum(keep_lanes(sums, 0, size - 16 * block), peak)
        if block % TALL == TALL - 1 or block == last - 1:
            store(peaks + 64 * (block // TALL), peak)
            peak = splat(-math.inf)
