"""Records of operations over active channels of one token: select, then read what is listed.

All are for one token: many tokens have many lists (`batch`, `masked`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from sparity_edge.arrays import Floats, Integers, round_up
from sparity_edge.kernels.active_list import ActiveList, full_list
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.program.forms import digits_of
from sparity_edge.kernels.program.recorder import NO_STREAM, Recorder
from sparity_edge.kernels.sparse import ffn as ffn_kernels
from sparity_edge.kernels.sparse import select as select_kernels
from sparity_edge.kernels.sparse import spvmm as spvmm_kernels
from sparity_edge.kernels.sparse import vmmsp as vmmsp_kernels
from sparity_edge.packed.layout import K_QUANT_TILES, Layout

# Parts of a list: many enough that threads end together, few enough that adding their sums is
# nothing, half of which another core has written (gate of SmolLM2, half of its inputs: 16 parts
# 21 us, 8 parts 15, 4 parts 13); not less than these weights for each. With panels, chunks.
MOST_PARTS, MOST_CHUNKS = 8, 16
PART_WEIGHTS = 1 << 18
# Words of a dot product that only dense products have.
NOT_DENSE: dict[str, Any] = {"accumulate": 0, "step": 0, "ahead": 0}


@functools.cache
def every_channel(size: int) -> ActiveList:
    """The list of all channels below `size`, always the same one: for dense products."""
    return full_list(size)


def select_threshold(
    recorder: Recorder,
    x: Floats,
    thresholds: Floats,
    out: ActiveList,
    centre: Floats | None = None,
    coefficients: Floats | None = None,
    exponent: Floats | None = None,
) -> None:
    """Channels with |x - centre| > threshold (x the factors of threshold_factor.py), or NaN."""
    recorder.record(
        select_kernels.select_threshold, 1, x=x, centre=centre, size=x.shape[1], active=out,
        thresholds=thresholds, coefficients=coefficients, exponent=exponent,
    )  # fmt: skip


def select_top(
    recorder: Recorder,
    x: Floats,
    count: Integers,
    out: ActiveList,
    weights: Floats | None = None,
    centre: Floats | None = None,
) -> None:
    """The `count` channels of largest |x - centre| * weight."""
    size = x.shape[1]
    recorder.need_scratch(8 * (size + 32))
    recorder.record(
        select_kernels.select_top, 1, x=x, centre=centre, size=size, active=out, weights=weights,
        count=count,
    )  # fmt: skip


def select_n_of_m(
    recorder: Recorder,
    x: Floats,
    n: int,
    m: int,
    out: ActiveList,
    weights: Floats | None = None,
    centre: Floats | None = None,
) -> None:
    """The n channels of largest |x - centre| * weight in each m neighbours."""
    size = x.shape[1]
    recorder.need_scratch(4 * round_up(m, 16) + 128)
    chunks = -(-size // (m * select_kernels.GROUPS_IN_CHUNK))
    recorder.record(
        select_kernels.select_n_of_m, chunks, x=x, centre=centre, size=size, active=out,
        weights=weights, n=n, m=m,
    )  # fmt: skip


def vmmsp(
    recorder: Recorder,
    x: Floats,
    matrix: Matrix,
    active: ActiveList,
    out: Floats,
    bias: Floats | None = None,
) -> None:
    """Active outputs of x W^T (+ bias); the others stay as they are."""
    parts = parts_of(matrix.layout, 2 * MOST_PARTS)
    digits = digits_of(recorder, x, matrix.layout)
    kernel = vmmsp_kernels.KERNELS[matrix.layout.dtype]
    recorder.record(
        kernel, parts, matrix=matrix, x=x, bias=bias, out=out, **digits._asdict(),
        **NOT_DENSE, active=active, parts=parts, writes=out,
    )  # fmt: skip


def spvmm(
    recorder: Recorder,
    x: Floats,
    matrix: Matrix,
    active: ActiveList,
    outs: Sequence[Floats],
    biases: Sequence[Floats | None] | None = None,
    accumulate: bool = False,
) -> None:
    """x W^T over active inputs (+ bias) (+ outs), W stacked of as many matrices as `outs`."""
    layout = matrix.layout
    places, scratch = shares_of(layout)
    parts, panels = places["parts"], places["panels"]
    recorder.need_scratch(scratch)
    sums, stride = part_sums(recorder, parts, layout)
    stream = NO_STREAM
    if active is every_channel(layout.shape[1]) and panels == 1:
        stream = (matrix.data_address, layout.nbytes // parts)
    recorder.record(
        spvmm_kernels.spvmm, parts * panels, matrix=matrix, x=x, active=active, **places,
        part_sums=sums, part_bytes=stride, stream=stream,
    )  # fmt: skip
    add_parts(recorder, sums, stride, parts, outs, biases, accumulate)


def ffn(
    recorder: Recorder,
    x: Floats,
    gate: Floats,
    bundle: ffn_kernels.Bundle,
    active: ActiveList,
    out: Floats,
    centre: Floats | None = None,
    accumulate: bool = False,
    relu_up: bool = False,
    by_channel: bool = False,
) -> None:
    """Sum over active i of (gate_i - centre_i) (up_i . x) down_i (+ out).

    Cut `by_channel`, the sum has the bits of that over all neurons where the others are zero.
    """
    parts = parts_of(bundle.layout.up, MOST_PARTS)
    recorder.need_scratch(ffn_kernels.SCRATCH_BYTES)
    sums, stride = part_sums(recorder, parts, bundle.layout.down)
    recorder.record(
        ffn_kernels.ffn, parts, x=x, **digits_of(recorder, x, bundle.layout.up)._asdict(),
        **ffn_words(bundle, gate, centre, active), parts=parts, part_sums=sums, part_bytes=stride,
        relu_up=relu_up, by_channel=by_channel,
    )  # fmt: skip
    add_parts(recorder, sums, stride, parts, [out], None, accumulate)


def ffn_words(
    bundle: ffn_kernels.Bundle, gate: Floats, centre: Floats | None, active: ActiveList
) -> dict[str, Any]:
    """The words of `ffn` and `ffn_each` but for activations and parts."""
    product = {"matrix": bundle.up_rows, "bias": None, "out": None, **NOT_DENSE}
    return {**product, "bundle": bundle, "gate": gate, "centre": centre, "active": active}


def part_sums(recorder: Recorder, parts: int, layout: Layout, tokens: int = 1) -> tuple[Any, int]:
    """Memory for the sums of parts (of each of several tokens), and how far apart they are."""
    stride = 4 * layout.padded + 64  # a power of two would alias in one set of L1
    nbytes = tokens * (parts * stride + 64)
    # Products side by side keep their sums apart.
    return recorder.pool(("sums", recorder.side_by_side, nbytes), nbytes), stride


def add_parts(
    recorder: Recorder,
    sums: Any,
    stride: int,
    parts: int,
    outs: Sequence[Floats],
    biases: Sequence[Floats | None] | None,
    accumulate: bool,
) -> None:
    """Have the sums of parts added in their order, once all of them are there."""
    recorder.kept.append(sums)

    def record() -> None:
        start = int(sums.ctypes.data)
        for out, bias in zip(outs, biases or [None] * len(outs), strict=True):
            size = out.shape[1]
            recorder.record(
                spvmm_kernels.add_parts, -(-size // spvmm_kernels.COLUMNS), sums=start,
                stride=stride, count=parts, size=size, bias=bias, accumulate=accumulate, out=out,
                writes=out,
            )  # fmt: skip
            start += 4 * size

    recorder.afterwards(record)


def shares_of(layout: Layout) -> tuple[dict[str, Any], int]:
    """How an input-sparse product is cut, and where its tables stand in scratch memory.

    Returns:
        Words of `spvmm` and `spvmm_each`, and bytes of scratch memory for a token.
    """
    panels = -(-layout.padded // spvmm_kernels.MOST_COLUMNS)
    parts = max(2, MOST_CHUNKS // panels) if panels > 1 else parts_of(layout, MOST_PARTS)
    tile = K_QUANT_TILES.get(layout.dtype, spvmm_kernels.COLUMNS)
    columns = round_up(-(-layout.padded // panels), tile)
    digits, blocks, end = spvmm_kernels.table(layout.shape[1], layout.group)
    words = {"parts": parts, "panels": panels, "panel_columns": columns}
    return {**words, "digits_at": digits, "blocks_after": blocks}, end


def parts_of(layout: Layout, most: int) -> int:
    """Into how many parts a list is cut: depends on the shape alone, so that results do too.

    A power of two, which two or four threads share evenly.
    """
    outputs, inputs = layout.shape
    parts = max(2, min(most, outputs * inputs // PART_WEIGHTS))
    return 1 << round(math.log2(parts))
