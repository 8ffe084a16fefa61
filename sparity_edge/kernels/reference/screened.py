"""The NumPy twin of a screened product."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import Floats, round_up
from sparity_edge.kernels.active_list import channels, set_channels
from sparity_edge.kernels.reference.sparse import vmmsp
from sparity_edge.kernels.screen import BEST, LEAST, Candidates, Screen
from sparity_edge.packed.lane_rows import GROUP

GROUPS = (16, 16)  # the maxima are taken of every 16th of 256 scores


def screened(
    x: Floats, matrix: Floats, screen: Screen, candidates: Candidates, out: Floats
) -> None:
    """out = x W^T where it is large or required, and about that elsewhere.

    Args:
        x: (1, inputs).
        matrix: W, (outputs, inputs).
        screen: its coarse copy.
        candidates: what is asked for, and memory.
        out: (1, outputs).
    """
    vmmsp(x, matrix, candidates.probes, candidates.exact)
    candidates.projected[:] = x @ screen.projection.T
    out[:] = _of_8_bits(candidates.projected) @ screen.rows.T
    set_channels(candidates.found, near_best(out[0], candidates))
    vmmsp(x, matrix, candidates.found, out)


def _of_8_bits(x: Floats) -> Floats:
    """x (1, size) rounded to whole multiples of a scale that 64 numbers share."""
    size = x.shape[1]
    groups = np.zeros((-(-size // GROUP), GROUP), dtype=np.float32)
    groups.reshape(-1)[:size] = x[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        scales = np.abs(groups).max(axis=1, keepdims=True) / 127
        rounded = np.where(scales > 0, np.rint(groups / scales), 0) * scales
    return rounded.reshape(1, -1)[:, :size]


def near_best(scores: Floats, candidates: Candidates) -> npt.NDArray[np.intp]:
    """The outputs whose scores come near the best, or that are required."""
    probes, required = channels(candidates.probes), channels(candidates.required)
    errors = scores[probes] - candidates.exact[0, probes]
    sigma = np.sqrt((errors * errors).sum(dtype=np.float64) / max(1, len(probes)))
    scores = scores.copy()
    scores[required] = -np.inf
    filled = np.full(round_up(len(scores), GROUPS[0] * GROUPS[1]), -np.inf, dtype=np.float32)
    filled[: len(scores)] = scores
    maxima = np.sort(_without_last_bit(filled.reshape(-1, *GROUPS).max(axis=1).ravel()))
    count = max(1, int(candidates.count[0]))
    kth = maxima[-count] if count <= len(maxima) else -np.inf
    with np.errstate(invalid="ignore"):
        limit = np.float32(min(maxima[-1] - BEST * sigma, kth - LEAST * sigma))
    scores[required] = np.inf
    return np.flatnonzero(~(scores < limit))


def _without_last_bit(values: Floats) -> Floats:
    """Rounded down to numbers whose last bit, of the integers in their order, is 0."""
    bits = np.ascontiguousarray(values).view(np.int32)
    ordered = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits) >> 1 << 1
    rounded = np.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).astype(np.int32).view(np.float32)
    return np.where(np.isneginf(values), np.float32(-np.inf), rounded)
