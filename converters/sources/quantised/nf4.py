"""bitsandbytes in four bits, nf4 and fp4: a table of sixteen values, times the largest of a block.

`weight` is bytes of two numbers, the high one first, of all rows one after another; blocks of
`blocksize` numbers share an `absmax`, which may be quantised in turn: a byte is a place in
`nested_quant_map`, times `nested_absmax` of its block, plus an offset. What is no tensor is JSON in
bytes, `quant_state.bitsandbytes__nf4`. Read as floats. Source: functional.py, bitsandbytes 0.50.2.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.sources.quantised.grid import Matrix
from converters.sources.quantised.parts import Parts
from converters.sources.quantised.stored import Stored
from sparity_edge.config.values import MAX_DIMENSION, show, whole

Array = npt.NDArray[Any]

KEY = "weight.absmax"
STATES = tuple(f"weight.quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4"))
PARTS = (
    "weight", KEY, "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map", *STATES
)  # fmt: skip
MAX_STATE = 4096  # bytes
MAX_BLOCK = 1 << 16


class Nf4(Matrix):
    """One linear of bitsandbytes in four bits."""

    why_floats = "no format here holds the values of a table of 16"

    def __init__(self, parts: Parts) -> None:
        """Check the parts of a module.

        Args:
            parts: of the module.

        Raises:
            SourceError: they do not fit each other.
        """
        self._parts, self._state = parts, _state(parts)
        rows, columns = self.shape = self._true_shape()
        count = rows * columns
        self._block = self._size("blocksize")
        weight = parts.take("weight", ("U8",), 2)
        if weight.shape not in ((-(-count // 2), 1), (1, -(-count // 2))):
            raise parts.refused(f"weight has shape {weight.shape} for {count} numbers of 4 bits")
        self._bytes = Stored(weight.name, weight.path, "U8", (-(-count // 2),), weight.offset)
        self._table = parts.take("weight.quant_map", ("F32",), (16,)).read()
        self._largest = self._absmax(-(-count // self._block))

    def read(self, start: int, stop: int) -> Array:
        columns = self.shape[1]
        first, last = start * columns, stop * columns
        packed = self._bytes.read(first // 2, -(-last // 2))
        places = np.stack([packed >> 4, packed & 15], axis=1).reshape(-1)
        values: Array = self._table[places[first % 2 :][: last - first]]
        values *= self._largest[np.arange(first, last) // self._block]
        return values.reshape(stop - start, columns)

    def _true_shape(self) -> tuple[int, int]:
        shape = self._state.get("shape")
        if not isinstance(shape, list) or len(shape) != 2 or not all(map(_is_side, shape)):
            raise self._parts.refused(f"the quant_state has shape={show(shape)}")
        return shape[0], shape[1]

    def _size(self, key: str) -> int:
        size = whole(self._state.get(key))
        if not _is_side(size) or size > MAX_BLOCK:
            raise self._parts.refused(f"the quant_state has {key}={show(size)}")
        return int(size)

    def _absmax(self, blocks: int) -> Array:
        largest = self._parts.take(KEY, ("F32", "U8"), (blocks,))
        if largest.dtype == "F32":
            return largest.read()
        offset = self._state.get("nested_offset")
        if isinstance(offset, bool) or not isinstance(offset, int | float) or abs(offset) > 1e30:
            raise self._parts.refused(f"the quant_state has nested_offset={show(offset)}")
        size = self._size("nested_blocksize")
        table = self._parts.take("weight.nested_quant_map", ("F32",), (256,)).read()
        scales = self._parts.take("weight.nested_absmax", ("F32",), (-(-blocks // size),)).read()
        with np.errstate(over="ignore", invalid="ignore"):
            found: Array = table[largest.read()] * np.repeat(scales, size)[:blocks]
            return found + np.float32(offset)


def _state(parts: Parts) -> dict[str, Any]:
    """What is no tensor of a module."""
    name = next((each for each in STATES if each in parts.stored), STATES[0])
    stored = parts.take(name, ("U8",), 1)
    if stored.shape[0] > MAX_STATE:
        raise parts.refused(f"{name} has {stored.shape[0]} bytes")
    try:
        state = json.loads(stored.read().tobytes())
    except (ValueError, RecursionError) as error:
        raise parts.refused(f"{name} is not valid JSON") from error
    if not isinstance(state, dict):
        raise parts.refused(f"{name} is not a JSON object")
    return state


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_DIMENSION
