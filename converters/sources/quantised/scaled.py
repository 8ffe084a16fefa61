"""Float8 numbers and a scale for all of them, for every row, or for every block: read as floats.

FP8 checkpoints say `weight_scale_inv`, which is multiplied all the same; compressed-tensors and
FBGEMM say `weight_scale`. Scales are one number, one each row, or (row blocks, column blocks), of
which the last may be cut. Source: integrations/finegrained_fp8.py of transformers 5.24.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from converters.sources.quantised.grid import Matrix
from converters.sources.quantised.parts import Parts
from converters.sources.quantised.stored import FLOATS, as_float32

Array = npt.NDArray[Any]

# Of activations, which stay as they are here.
IGNORED = ("input_scale", "activation_scale", "output_scale", "input_scale_ub")
PARTS = ("weight", "weight_scale_inv", "weight_scale", *IGNORED)
_VALUES = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)


class Scaled(Matrix):
    """One linear in float8."""

    why_floats = "no format here holds float8"

    def __init__(self, parts: Parts, scale: str, block: tuple[int, int] | None) -> None:
        """Check the parts of a module.

        Args:
            parts: of the module.
            scale: the part that scales are in.
            block: rows and columns of a block, where config.json says them.

        Raises:
            SourceError: they do not fit each other.
        """
        self._weight = parts.take("weight", ("F8_E4M3",), 2)
        rows, columns = self.shape = (self._weight.shape[0], self._weight.shape[1])
        if not rows or not columns:
            raise parts.refused(f"weight has shape {self.shape}, which is nothing")
        stored = parts.stored.get(scale)
        shape = stored.shape if stored else ()
        self._block = rows, columns
        if rows > 1 and shape in ((rows,), (rows, 1)):
            self._block = 1, columns
        elif shape not in ((), (1,), (1, 1)) and block:
            self._block = block
        down, across = self._block
        blocks = -(-rows // down), -(-columns // across)
        allowed = {blocks, (rows,), ()} if down == 1 else {blocks, (1,), ()}
        if stored is not None and shape not in allowed:
            raise parts.refused(f"{scale} has shape {shape} in place of {blocks}")
        scales = as_float32(parts.take(scale, FLOATS, shape).read())
        self._scales = scales.reshape(blocks)

    def read(self, start: int, stop: int) -> Array:
        down, across = self._block
        values: Array = _VALUES[self._weight.read(start, stop).view(np.uint8)]
        rows = self._scales[np.arange(start, stop) // down]
        with np.errstate(over="ignore", invalid="ignore"):
            values *= np.repeat(rows, across, axis=1)[:, : self.shape[1]]
        return values
