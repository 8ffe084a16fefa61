"""Screen: a coarse, small copy of a matrix that tells which outputs of a product may be large.

Scores of all outputs are `rows` times the projected activations, in a fraction of the bytes of the
matrix; what comes near the best is then computed exactly. `Candidates` is the memory of one such
product. Imports no Numba: the reference uses it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparity_edge.arrays import Floats, Integers, rows
from sparity_edge.kernels.active_list import ActiveList, empty_list, set_channels

# Standard deviations of the errors of scores, by which an output may be below the best score and
# below the last of those that are wanted. At 6.5 one of 2,048 best tokens of WikiText-2 was left
# out of the 1.5B model's, and at 8 two of 2,048 of C4; none of SmolLM2's (bench/head/screen.py). So
# a screen is used where it is asked for.
BEST, LEAST = 8.0, 5.0
PROBES = 128  # outputs on which the errors of a token's scores are measured


@dataclass(frozen=True)
class Screen:
    """The matrices of a screen, as a machine has them."""

    projection: Any  # (coordinates, inputs), a matrix of the machine
    rows: Any  # (outputs, coordinates), `LaneRows` or their values


class Candidates:
    """What is asked of a screened product of one token, and which outputs it computed exactly.

    Args:
        outputs: of the product.
        coordinates: of the screen.
    """

    def __init__(self, outputs: int, coordinates: int) -> None:
        self.count = np.ones(1, dtype=np.int64)  # how many of the best outputs are wanted
        self.required: ActiveList = empty_list(outputs)  # outputs that are wanted in any case
        self.found: ActiveList = empty_list(outputs)  # outputs that were computed
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
