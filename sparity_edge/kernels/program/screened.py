"""Records of a screened product: coarse scores of all outputs, then those that come near the best.

Probes go beside the projection, since both wait for the same activations. For one token only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparity_edge.arrays import Floats, aligned_zeros
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
    _scores(recorder, candidates.projected, screen.rows, out)
    size = out.shape[1]
    recorder.need_scratch(near_best.scratch_bytes(size))
    recorder.record(
        near_best.select_near_best, 1, scores=out, size=size, exact=candidates.exact,
        probes=candidates.probes, required=candidates.required, count=candidates.count, best=BEST,
        least=LEAST, active=candidates.found,
    )  # fmt: skip
    vmmsp(recorder, x, matrix, candidates.found, out)


def _scores(recorder: Recorder, x: Floats, rows: LaneRows, out: Floats) -> None:
    """out = x W^T of the rows of a screen."""
    layout = rows.layout
    small = aligned_zeros(layout.inputs)
    scales, offsets = np.zeros((2, layout.groups), dtype=np.float32)
    split: dict[str, Any] = {"small": small, "scales": scales, "offsets": offsets}
    recorder.record(lane_rows.split_small, layout.groups, x=x, **split)
    step = max(1, CHUNK_BYTES // layout.block_bytes)
    recorder.record(
        lane_rows.vmm_lane_rows, -(-layout.blocks // step), rows=rows.data, groups=layout.groups,
        blocks=layout.blocks, block_bytes=layout.block_bytes, number_bytes=layout.number_bytes,
        out=out, step=step, **split, writes=out,
        stream=(int(rows.data.ctypes.data), step * layout.block_bytes),
    )  # fmt: skip
