"""Steps between the matrices in NumPy, forward and backward: RMSNorm, rotary embedding, gates."""

from __future__ import annotations

import numpy as np

from sparity_edge.arrays import Floats
from sparity_edge.config.activation import Activation


def rmsnorm(x: Floats, weight: Floats, epsilon: float) -> Floats:
    """x / root mean square x weight, by row."""
    return x * _inverse_size(x, epsilon) * weight


def rmsnorm_back(x: Floats, weight: Floats, epsilon: float, slope: Floats) -> Floats:
    """The gradient at the input of `rmsnorm`, given the one at its output."""
    inverse = _inverse_size(x, epsilon)
    unit = x * inverse
    scaled = slope * weight
    along = np.einsum("tc,tc->t", scaled, unit)[:, None] / np.float32(x.shape[1])
    result: Floats = inverse * (scaled - unit * along)
    return result


def _inverse_size(x: Floats, epsilon: float) -> Floats:
    mean = np.einsum("tc,tc->t", x, x)[:, None] / np.float32(x.shape[1])
    result: Floats = 1 / np.sqrt(mean + np.float32(epsilon))
    return result


def rotate(heads: Floats, table: Floats, direction: int = 1) -> Floats:
    """Rotary embedding of (heads, tokens, head_dim); direction -1 takes gradients back."""
    half = heads.shape[2] // 2
    cosines, sines = table[: heads.shape[1], :half], table[: heads.shape[1], half:]
    if direction < 0:
        sines = -sines
    first, second = heads[..., :half], heads[..., half:]
    parts = (first * cosines - second * sines, second * cosines + first * sines)
    result: Floats = np.concatenate(parts, axis=2)
    return result


def activated(gate: Floats, activation: Activation) -> tuple[Floats, Floats]:
    """Gates after their activation, and its derivative."""
    if activation.zeroes:
        above = gate > np.float32(activation.threshold)
        return gate * above, above.astype(np.float32)
    share = sigmoid(gate)
    return gate * share, share * (1 + gate * (1 - share))


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)); a large negative x gives 0."""
    with np.errstate(over="ignore"):
        result: Floats = np.float32(1) / (np.float32(1) + np.exp(-x))
    return result
