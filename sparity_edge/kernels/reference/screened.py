"""The NumPy twin of a screened product."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import Floats, round_up
from sparity_edge.kernels.active_list import channels, set_channels
from sparity_edge.kernels.reference.sparse import vmmsp
from sparity_edge.kernels.screen import BEST, LEAST, Candidates, Screen
from sparity_edge.packed.lane_rows import GROUP

Outputs = npt.NDArray[np.intp]
TALL, WIDE = 16, 16  # the largest scores are taken of every 16th of 256


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
    probes, errors = channels(candidates.probes), screen.errors[: out.shape[1]].astype(np.float32)
    off = (out[0, probes] - candidates.exact[0, probes]) / errors[probes]
    spread = np.sqrt((off * off).sum(dtype=np.float64) / max(1, len(probes)))
    candidates.spread[0] = spread
    set_channels(candidates.first, _highest(out[0], candidates))
    vmmsp(x, matrix, candidates.first, out)
    set_channels(candidates.found, _near_best(out[0], errors * np.float32(spread), candidates))
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


def _highest(scores: Floats, candidates: Candidates) -> Outputs:
    """The outputs of the highest scores, and those that are required."""
    required = channels(candidates.required)
    filled = np.full(round_up(len(scores), TALL * WIDE), -np.inf, dtype=np.float32)
    filled[: len(scores)] = scores
    peaks = filled.reshape(-1, TALL, WIDE).max(axis=1).ravel()
    least = _kth(peaks, int(candidates.count[0]) + candidates.spare + len(required))
    return np.union1d(np.flatnonzero(~(scores < least)), required)


def _near_best(values: Floats, errors: Floats, candidates: Candidates) -> Outputs:
    """The outputs that may be among the best, and those whose exact values stand there already.

    Args:
        values: (outputs,) exact ones of the first list, scores elsewhere.
        errors: (outputs,) of scores.
        candidates: what is asked for, and the first list.
    """
    first = channels(candidates.first)
    exact = values[np.setdiff1d(first, channels(candidates.required))]
    count = max(1, int(candidates.count[0]))
    with np.errstate(invalid="ignore"):
        limits = np.minimum(
            _kth(exact, 1) - np.float32(BEST) * errors, _kth(exact, count) - LEAST * errors
        )
    return np.union1d(np.flatnonzero(~(values < limits)), first)


def _kth(values: Floats, k: int) -> np.float32:
    """The k-th largest, rounded down to a number whose last bit is 0; -inf if there are less.

    The last bit is that of integers in the order of the numbers.
    """
    if k > len(values):
        return np.float32(-np.inf)
    bits = np.sort(values)[-k:][:1].view(np.int32)
    ordered = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits) >> 1 << 1
    rounded = np.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).astype(np.int32).view(np.float32)
    return np.float32(-np.inf if np.isneginf(values).all() else rounded[0])
