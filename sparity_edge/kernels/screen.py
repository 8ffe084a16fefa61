"""Screen: a coarse, small copy of a matrix that tells which outputs of a product may be large.

Scores of all outputs are `rows` times the projected activations, in a fraction of the bytes of the
matrix; the highest are then computed exactly, and whatever may be among the best in their light.
`Candidates` is the memory of one such product. Imports no Numba: the reference uses it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import Bytes, Floats, Integers, aligned_zeros, round_up, rows
from sparity_edge.kernels.active_list import ActiveList, empty_list, set_channels

# Spreads of the errors of scores by which an output may miss the best value and the last of those
# that are wanted, and still be computed; on held-out text no best output would have been left out
# by a margin one less (bench/head/screen.py).
BEST, LEAST = 8.0, 6.5
SPARE = 256  # one of so many outputs is computed first, beyond those that are wanted
LARGEST = 127  # of the numbers that stand for errors of scores
PROBES = 128  # outputs on which the errors of a token's scores are measured


def error_bytes(errors: npt.NDArray[np.floating[Any]]) -> Bytes:
    """How large the errors of the scores of outputs are beside others', in whole numbers.

    Args:
        errors: (outputs,) positive numbers, of which only the proportions count.

    Returns:
        (outputs,) and zeros up to a multiple of 16: 127 for the largest, the others rounded up.
    """
    found = aligned_zeros(round_up(len(errors), 16))
    most = max(float(errors.max()), 1e-30)
    found[: len(errors)] = np.clip(np.ceil(LARGEST / most * errors), 1, LARGEST)
    return found


@dataclass(frozen=True)
class Screen:
    """The matrices of a screen, as a machine has them."""

    projection: Any  # (coordinates, inputs), a matrix of the machine
    rows: Any  # (outputs, coordinates), `LaneRows` or their values
    errors: Bytes  # (outputs,) and more up to 16: see `error_bytes`


class Candidates:
    """What is asked of a screened product of one token, and which outputs it computed exactly.

    Args:
        outputs: of the product.
        coordinates: of the screen.
    """

    def __init__(self, outputs: int, coordinates: int) -> None:
        self.count = np.ones(1, dtype=np.int64)  # how many of the best outputs are wanted
        self.required: ActiveList = empty_list(outputs)  # outputs that are wanted in any case
        self.first: ActiveList = empty_list(outputs)  # outputs that are computed first
        self.found: ActiveList = empty_list(outputs)  # all outputs that were computed
        self.spare = outputs // SPARE
        self.spread: Floats = np.zeros(1, dtype=np.float32)  # where `Screen.errors` is 1
        self.probes: ActiveList = empty_list(PROBES)
        spread = np.linspace(0, outputs - 1, min(PROBES, outputs))
        set_channels(self.probes, np.unique(spread.astype(np.int32)))
        self.projected: Floats = rows(1, coordinates)
        self.exact: Floats = rows(1, outputs)  # of the probes

    def ask(self, count: int, required: Integers) -> None:
        """Want the `count` best outputs of the next product, and some (n,) in any case, ascending.

        Those do not count among the best.
        """
        self.count[0] = count
        set_channels(self.required, required)
