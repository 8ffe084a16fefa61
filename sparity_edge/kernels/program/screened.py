"""Records of a screened product: coarse scores of all outputs, then exact values of the best.

Probes go beside the projection, since both wait for the same activations. For one token only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparity_edge.arrays import Floats, aligned_zeros, rows
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.program.dense import CHUNK_BYTES, vmm
from sparity_edge.kernels.program.recorder import Recorder
from sparity_edge.kernels.program.sparse import vmmsp
from sparity_edge.kernels.screen import BEST, LEAST, Candidates, Screen
from sparity_edge.kernels.screened import lane_rows, near_best
from sparity_edge.packed.lane_rows import LaneRows


def screened(
    recorder: Recorder,
    x: Floats,
    matrix: Matrix,
    screen: Screen,
    candidates: Candidates,
    out: Floats,
) -> None:
    """out = x W^T where it is large or required, and about that elsewhere."""
    with recorder.together():
        vmmsp(recorder, x, matrix, candidates.probes, candidates.exact)
        vmm(recorder, x, screen.projection, candidates.projected, None, accumulate=False)
    size = out.shape[1]
    peaks = rows(1, 16 * -(-size // (16 * lane_rows.TALL)))
    _scores(recorder, candidates.projected, screen.rows, out, peaks)
    recorder.need_scratch(near_best.scratch_bytes(size))
    shared: dict[str, Any] = {
        "scores": out, "size": size, "errors": screen.errors, "required": candidates.required,
        "count": candidates.count, "spread": candidates.spread,
    }  # fmt: skip
    recorder.record(
        near_best.select_highest, 1, peaks=peaks, exact=candidates.exact, probes=candidates.probes,
        spare=candidates.spare, active=candidates.first, **shared,
    )  # fmt: skip
    vmmsp(recorder, x, matrix, candidates.first, out)
    recorder.record(
        near_best.select_near_best, 1, first=candidates.first, best=BEST, least=LEAST,
        active=candidates.found, **shared,
    )  # fmt: skip
    vmmsp(recorder, x, matrix, candidates.found, out)


def _scores(recorder: Recorder, x: Floats, coarse: LaneRows, out: Floats, peaks: Floats) -> None:
    """out = x W^T of the rows of a screen, and the largest of them, by lanes of tall blocks."""
    layout = coarse.layout
    small = aligned_zeros(layout.inputs)
    scales, offsets = np.zeros((2, layout.groups), dtype=np.float32)
    split: dict[str, Any] = {"small": small, "scales": scales, "offsets": offsets}
    recorder.record(lane_rows.split_small, layout.groups, x=x, **split)
    step = lane_rows.TALL * max(1, CHUNK_BYTES // (lane_rows.TALL * layout.block_bytes))
    recorder.record(
        lane_rows.vmm_lane_rows, -(-layout.blocks // step), rows=coarse.data, groups=layout.groups,
        blocks=layout.blocks, block_bytes=layout.block_bytes, number_bytes=layout.number_bytes,
        out=out, size=layout.outputs, peaks=peaks, step=step, **split, writes=out,
        stream=(int(coarse.data.ctypes.data), step * layout.block_bytes),
    )  # fmt: skip
