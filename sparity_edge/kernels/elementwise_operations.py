"""ElementwiseOperations: the part of the vocabulary that reads no matrix.

Norms, activations and products of the vectors between the matrices; `operations` has the rest, and
says what arrays are. Imports no Numba.
"""

from __future__ import annotations

from typing import Protocol

from sparity_edge.arrays import Floats


class ElementwiseOperations(Protocol):
    """Operations on vectors alone. Every result goes to the array named `out`."""

    def rmsnorm(
        self, x: Floats, weight: Floats, epsilon: float, out: Floats, accumulate: bool = False
    ) -> None:
        """x / sqrt(mean(x**2) + epsilon) * weight for every row (Zhang and Sennrich, 2019).

        Args:
            x: (tokens, size).
            weight: (size,).
            epsilon: added to the mean square.
            out: (tokens, size); may be `x`.
            accumulate: whether the result is added to `out`.

        Example:
            >>> out = rows(1, 2)
            >>> ops.rmsnorm(np.float32([[1, 7]]), np.float32([5, 10]), 0.0, out)
            >>> out.tolist()
            [[1.0, 14.0]]
        """

    def silu_mul(self, gate: Floats, up: Floats, out: Floats) -> None:
        """silu(gate) * up, the middle of the FFN (Shazeer, 2020).

        Args:
            gate, up: (tokens, neurons).
            out: (tokens, neurons); may be one of the two.

        Example:
            >>> out = rows(1, 2)
            >>> ops.silu_mul(np.float32([[0, 50]]), np.float32([[7, 2]]), out)
            >>> out.tolist()
            [[0.0, 100.0]]
        """

    def silu(self, x: Floats, out: Floats) -> None:
        """x / (1 + exp(-x)).

        Args:
            x: (tokens, size).
            out: (tokens, size); may be `x`.

        Example:
            >>> out = rows(1, 2)
            >>> ops.silu(np.float32([[0, 50]]), out)
            >>> out.tolist()
            [[0.0, 50.0]]
        """

    def relu(self, x: Floats, threshold: float, out: Floats) -> None:
        """x where it is above the threshold, else 0; NaN stays (ReLU with 0, else FATReLU).

        Args:
            x: (tokens, size).
            threshold: at least 0.
            out: (tokens, size); may be `x`.

        Example:
            >>> out = rows(1, 3)
            >>> ops.relu(np.float32([[-2, 0.5, 3]]), 0.5, out)
            >>> out.tolist()
            [[0.0, 0.0, 3.0]]
        """

    def scale(self, x: Floats, factor: float, out: Floats) -> None:
        """x * factor.

        Args:
            x: (tokens, size).
            factor: of all numbers.
            out: (tokens, size); may be `x`.

        Example:
            >>> out = rows(1, 2)
            >>> ops.scale(np.float32([[1, -2]]), 0.5, out)
            >>> out.tolist()
            [[0.5, -1.0]]
        """

    def multiply(self, x: Floats, y: Floats, out: Floats) -> None:
        """x * y.

        Args:
            x, y: (tokens, size).
            out: (tokens, size); may be one of the two.

        Example:
            >>> out = rows(1, 2)
            >>> ops.multiply(np.float32([[1, -2]]), np.float32([[3, 4]]), out)
            >>> out.tolist()
            [[3.0, -8.0]]
        """
