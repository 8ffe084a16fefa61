"""What prompts round activations to where they are multiplied as bytes, in plain NumPy.

The twin of `pack_bytes`: products of these numbers are exact but for float32. Knows no kernel.
"""

from __future__ import annotations

import numpy as np

from sparity_edge.arrays import Doubles, Floats

SHARED, HALF = 128, 16  # inputs that share a scale, and a factor on it
ALMOST = np.float32(1 - 2.0**-20)
MOST, MOST_FACTOR, LEAST = np.float32(127), np.float32(4096), np.float32(1e-32)


def rounded_to_bytes(x: Floats) -> Doubles:
    """Finite activations (tokens, size) as scale * factor * byte.

    The scale of 128 inputs is their largest size over 127 * 4096; the factor of sixteen of them the
    least whole number, but for rounding, that is not below their largest size over 127 scales.
    """
    tokens, size = x.shape
    numbers = np.zeros((tokens, -(-size // SHARED), SHARED // HALF, HALF), dtype=np.float32)
    numbers.reshape(tokens, -1)[:, :size] = x
    sizes = np.abs(numbers).max(axis=3, keepdims=True)
    most = sizes.max(axis=2, keepdims=True)
    scales = np.where(most > LEAST, most / (MOST * MOST_FACTOR), 0).astype(np.float64)
    inverse = MOST_FACTOR / np.maximum(most, LEAST)
    factors = np.floor(sizes * (inverse * ALMOST)) + 1
    integers = np.rint(numbers * (MOST * inverse / factors))
    result: Doubles = (integers * factors * scales).reshape(tokens, -1)[:, :size]
    return result
