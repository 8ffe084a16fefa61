"""The threshold factor: of all thresholds of a vector, guessed from the vector's own statistics.

log factor = b0 + b1 log(mean |x|) + b2 log(rms / mean |x|) + b3 log(max |x| / mean |x|), clipped to
a factor of 4 both ways; four coefficients for each layer and site, fitted by calibration. One pass
over the vector, which the selection reads next anyhow. A NaN in it gives NaN, which drops none.
The other factor, of a gain, is exp(-exponent), where a product before has made the exponent.
"""

from __future__ import annotations

import math

import numpy as np

from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.simd.memory import load, load_f32
from sparity_edge.kernels.simd.vectors import add, fma, largest, maximum, splat, sub, total
from sparity_edge.kernels.sparse_vector import FLOOR, LARGEST_EXPONENT, LARGEST_FACTOR

LARGEST_LOG = math.log(LARGEST_FACTOR)


@device
def factor_of_gain(exponent: int) -> np.float32:
    """exp(-exponent), the exponent clipped to LARGEST_EXPONENT both ways; 1 at address 0."""
    if exponent == 0:
        return np.float32(1.0)
    value = load_f32(exponent)
    if value > LARGEST_EXPONENT:
        value = np.float32(LARGEST_EXPONENT)
    elif value < -LARGEST_EXPONENT:
        value = np.float32(-LARGEST_EXPONENT)
    return np.float32(math.exp(-value))


@device
def _log(value: float) -> float:
    """The logarithm of a mean, at least FLOOR; NaN stays NaN."""
    return math.log(FLOOR if value < FLOOR else value)


@device
def factor_of(x: int, centre: int, size: int, coefficients: int) -> np.float32:
    """The factor for x - centre, of `size` numbers followed by zeros; 1 without coefficients.

    Args:
        x: address of float32.
        centre: address of `size` float32 that are subtracted, or 0.
        size: of both.
        coefficients: address of four float32, or 0.
    """
    if coefficients == 0:
        return np.float32(1.0)
    sums, squares, peak, zero = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    for i in range(0, 4 * size, 64):
        value = load(x + i) if centre == 0 else sub(load(x + i), load(centre + i))
        magnitude = maximum(value, sub(zero, value))
        sums = add(sums, magnitude)
        squares = fma(value, value, squares)
        peak = maximum(peak, magnitude)
    mean = _log(total(sums) / size)
    rms = _log(math.sqrt(total(squares) / size))
    result = load_f32(coefficients) + load_f32(coefficients + 4) * mean
    result += load_f32(coefficients + 8) * (rms - mean)
    result += load_f32(coefficients + 12) * (_log(largest(peak)) - mean)
    if result > LARGEST_LOG:
        result = LARGEST_LOG
    elif result < -LARGEST_LOG:
        result = -LARGEST_LOG
    return np.float32(math.exp(result))
