"""Histograms of float32 numbers by their bits, and the loops that count into them.

The upper bits of a float are its logarithm, near enough: bits >> 15 gives bins at most 0.4 % wide,
and a count costs a shift and an addition. NumPy would need minutes for the vectors of a 1.5B model;
these loops need about a nanosecond a number.
"""

from __future__ import annotations

import functools
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.kernel import cache_of_these_kernels

Array = npt.NDArray[Any]

SHIFT = 15
MAGNITUDES = 1 << (31 - SHIFT)  # bins of |x|
_LINE = 16  # floats of a cache line


@functools.cache
def magnitude_edges() -> Array:
    """Where the bins of |x| begin and the last one ends, (MAGNITUDES + 1,) float64."""
    bits = np.arange(MAGNITUDES + 1, dtype=np.uint64) << SHIFT
    sizes = bits.astype(np.uint32).view(np.float32)
    # The bits of infinity and NaN: nothing is counted there that calibration does not refuse.
    sizes[~np.isfinite(sizes)] = np.finfo(np.float32).max
    return sizes.astype(np.float64)


def quantiles(counts: Array, levels: Array) -> Array:
    """The sizes below which the shares `levels` of all that was counted lie; within 0.4 %.

    Args:
        counts: (MAGNITUDES,) by bin of |x|.
        levels: shares, of 0 to 1.
    """
    below = np.concatenate([[0], np.cumsum(counts)])
    wanted = np.asarray(levels, dtype=np.float64) * below[-1]
    place = np.clip(np.searchsorted(below, wanted, side="left") - 1, 0, MAGNITUDES - 1)
    inside = (wanted - below[place]) / np.maximum(counts[place], 1)
    edges = magnitude_edges()
    sizes: Array = edges[place] + inside * (edges[place + 1] - edges[place])
    return sizes


def _gate_magnitudes() -> Array:
    """Edges of |g|: near 0 in steps relative to its size, up to 0.28 in steps of a thousandth."""
    parts: list[Array] = [
        np.zeros(1),
        2.0 ** np.arange(-20, -6, 1 / 16),
        np.arange(1 / 64, 0.28125, 1 / 1024),
        2.0 ** np.arange(np.log2(0.28125), 12, 1 / 24),
    ]
    return np.concatenate(parts)


def gate_bins() -> tuple[Array, Array]:
    """Bins of gates, which are no smaller than -0.2785, the minimum of SiLU.

    Returns:
        edges: (bins + 1,) float64, rising.
        table: (2 * MAGNITUDES,) uint16, from float bits >> SHIFT to the number of a bin.
    """
    magnitudes = np.unique(_gate_magnitudes().astype(np.float32).view(np.uint32) >> SHIFT)
    low = magnitudes[: np.searchsorted(magnitudes, np.float32(0.282).view(np.uint32) >> SHIFT)]
    size = np.arange(MAGNITUDES)
    positive = np.searchsorted(magnitudes, size, side="right") - 1
    negative = np.minimum(np.searchsorted(low, size, side="right") - 1, len(low) - 1)
    table = np.concatenate([len(low) + positive, len(low) - 1 - negative]).astype(np.uint16)
    values = magnitude_edges()
    low_edges = np.append(values[low[1:]], values[low[-1]] + 1 / 256)
    edges = np.concatenate([-low_edges[::-1], values[magnitudes], [values[MAGNITUDES - 1]]])
    return edges, table


def _count(bits: Array, counts: Array) -> None:
    """counts[bin of |x|] += 1 for every number of (tokens, channels) uint32."""
    for token in range(bits.shape[0]):
        for channel in range(bits.shape[1]):
            counts[(bits[token, channel] & np.uint32(0x7FFFFFFF)) >> np.uint32(SHIFT)] += 1


def _count_scores(x: Array, centre: Array, weights: Array, factors: Array, counts: Array) -> None:
    """counts[bin of |x - centre| * weight * factor] += 1 for all of (tokens, channels) float32."""
    scores = np.empty(x.shape[1], dtype=np.float32)
    bits = scores.view(np.uint32)
    for token in range(x.shape[0]):
        for channel in range(x.shape[1]):
            change = abs(x[token, channel] - centre[channel])
            scores[channel] = change * weights[channel] * factors[token]
        for channel in range(x.shape[1]):
            counts[(bits[channel] & np.uint32(0x7FFFFFFF)) >> np.uint32(SHIFT)] += 1


def _count_gates(
    bits: Array, up: Array, table: Array, start: int, stop: int, counts: Array, energy: Array
) -> None:
    """Count gates (tokens, neurons) by neuron, and add u^2 to the energy of their bins.

    A cache line of neurons at a time: their histograms (0.2 MB) stay in L2.
    """
    for first in range(start, stop, _LINE):
        last = min(first + _LINE, stop)
        for token in range(bits.shape[0]):
            for neuron in range(first, last):
                place = table[bits[token, neuron] >> np.uint32(SHIFT)]
                value = up[token, neuron]
                counts[neuron, place] += np.uint32(1)
                energy[neuron, place] += value * value


def _below(
    cumulated: Array, edges: Array, table: Array, values: Array, bits: Array, out: Array
) -> None:
    """out[i] = what `cumulated` (neurons, bins + 1) has of neuron i below values[i] (float32)."""
    for neuron in range(len(values)):
        place = np.int64(table[bits[neuron] >> np.uint32(SHIFT)])
        start = edges[place]
        inside = (values[neuron] - start) / (edges[place + 1] - start)
        left = cumulated[neuron, place]
        share = min(max(inside, 0.0), 1.0)
        out[neuron] = left + share * (cumulated[neuron, place + 1] - left)


with cache_of_these_kernels():
    _compile = numba.njit(nogil=True, cache=True, boundscheck=CHECKED)
    count = _compile(_count)
    count_scores = _compile(_count_scores)
    count_gates = _compile(_count_gates)
    interpolate_below = _compile(_below)
