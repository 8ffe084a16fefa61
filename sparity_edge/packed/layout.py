"""Layout: where each byte of one packed matrix stands; arithmetic only, no data is touched.

A matrix W of shape (outputs, inputs) is stored by rows of one channel each: `output` rows for dot
products, `input` rows (columns of W) for scaled adds. Quantisation groups run along the inputs in
both, so that changing the orientation changes no value. docs/format.md draws both. Packing lives in
converters/numbers/layout_bytes.py, the kernels read these offsets, and neither knows of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import ALIGNMENT, round_up
from sparity_edge.config.values import show
from sparity_edge.errors import FormatError

# Output-major rows of int8 and int4 go by blocks of 16 groups of 32 elements, which are interleaved
# so that a lane of a vector belongs to one group. The tail behind the last block, and all of an
# input-major row, goes by units: in int4 of 32 elements (16 bytes), output-major of 128 (64
# bytes), the last of which may be one of 64.
BLOCK = 512
UNIT = 32
WIDE_UNIT = 128
GROUPS = (32, 64, 128)
DTYPE_BITS = {
    "f32": 32, "bf16": 16, "int8": 8, "int4": 4, "int5": 5, "iq4": 4,
    "int2k": 2, "int3k": 3, "int4k": 4, "int5k": 5, "int6k": 6, "iq4k": 4,
}  # fmt: skip
# What the four bits of iq4 and iq4k stand for: llama.cpp's values for IQ4_NL, denser about zero.
IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
# K-quants, as GGUF has them: the 256 inputs of a superblock share a float16, of which the scale of
# every group is a whole multiple. They are kept, never made from floats.
SUPERBLOCK = 256
K_QUANT_GROUPS = {
    "int2k": 16, "int3k": 16, "int4k": 32, "int5k": 32, "int6k": 16, "iq4k": 32
}  # fmt: skip
# Bytes of a superblock: scales and what they are multiples of.
K_QUANT_SCALES = {
    "int2k": 20, "int3k": 14, "int4k": 16, "int5k": 16, "int6k": 18, "iq4k": 8
}  # fmt: skip
HALF_LINE = 32  # bytes, to which rows of K-quants are filled up
# Groups of 32 with a float16 scale each, which are kept as GGUF has them, too, and output-major
# only: their last block has fewer groups than 16, and rows follow each other without gaps.
KEPT_GROUPS = ("int5", "iq4")
# Output-major only, and what no bundle takes.
BY_THEMSELVES = (*KEPT_GROUPS, "int2k", "int3k", "int5k", "iq4k")
# What an integer stands for that is 0, in scales, where there are no minima.
ZEROS = {"int4": 8, "int5": 16}
# Input-major K-quants: columns whose numbers fill whole lines, bytes of their scales in a panel.
K_QUANT_TILES = {"int4k": 128, "int6k": 256}
K_QUANT_HEADERS = {"int4k": 192, "int6k": 256}
# Input-major rows of a multiple of so many lines have one line more: sixteen rows are read side by
# side, and cache lines 4 KB apart alias in one L1 set of twelve ways (int8, 4096 columns, fast
# memory: 8 % less).
SAME_SETS = 16
ORIENTATIONS = ("output", "input")
MAX_SIDE = 1 << 32  # channels; bounds what a hostile header can ask for


def elements_in_blocks(padded: int) -> int:
    """How many elements of an output-major row of int8 or int4 stand in blocks of 512."""
    return padded // BLOCK * BLOCK


def elements_in_wide_units(padded: int) -> int:
    """How many int4 elements of an output-major row stand in blocks or in units of 128."""
    return padded // WIDE_UNIT * WIDE_UNIT


@dataclass(frozen=True)
class Layout:
    """How one matrix is stored.

    int8 stands for w = scale * q with q in -128..127; int4 for w = scale * q + minimum with q in
    0..15, or w = scale * (q - 8) where `minimum` is False; int5 the same of 0..31 and q - 16.
    Of the K-quants, int4k and int5k stand for w = (d * s) * q - (e * m) with s and m in 0..63,
    int2k the same with q in 0..3, s and m in 0..15; int6k for w = (d * s) * q with q in -32..31
    and s in -128..127, int3k the same with q in -4..3 and s in -32..31. iq4 is w = scale * v and
    iq4k w = (d * s) * v with s in -32..31 and v = IQ4_VALUES[q].

    Raises:
        FormatError: the fields contradict each other.
    """

    dtype: str  # a key of DTYPE_BITS
    orientation: str  # "output": a row is one output channel; "input": one input channel
    shape: tuple[int, int]  # (outputs, inputs), true sizes
    # Input channels that share a scale: 32, 64, 128; 16 in int2k, int3k, int6k, 0 in f32 and bf16.
    group: int = 0
    minimum: bool = False  # int4 and int5, and always int2k, int4k and int5k

    def __post_init__(self) -> None:
        if self.dtype not in DTYPE_BITS:
            raise FormatError(f"dtype {show(self.dtype)} is not one of {', '.join(DTYPE_BITS)}.")
        if self.orientation not in ORIENTATIONS:
            raise FormatError(f"orientation {show(self.orientation)} is neither output nor input.")
        if len(self.shape) != 2 or not all(0 < side <= MAX_SIDE for side in self.shape):
            raise FormatError(f"shape {list(self.shape)} is not that of a matrix.")
        if self.group not in self._allowed_groups():
            raise FormatError(f"group {self.group} does not go with dtype {self.dtype}.")
        if self.minimum not in _MINIMA.get(self.dtype, (False,)):
            raise FormatError(f"minimum {self.minimum} does not go with dtype {self.dtype}.")
        if self.dtype in BY_THEMSELVES and self.orientation == "input":
            raise FormatError(f"{self.dtype} wants orientation output.")
        if self.k_quant and self.shape[1] % SUPERBLOCK:
            raise FormatError(f"{self.dtype} wants a multiple of {SUPERBLOCK} inputs.")

    def _allowed_groups(self) -> tuple[int, ...]:
        if self.k_quant:
            return (K_QUANT_GROUPS[self.dtype],)
        if self.kept_group:
            return (UNIT,)
        return GROUPS if self.quantized else (0,)

    @property
    def quantized(self) -> bool:
        """Whether numbers are integers with scales."""
        return self.dtype not in ("f32", "bf16")

    @property
    def k_quant(self) -> bool:
        """Whether it is a K-quant: scales are multiples of a float16 that 256 inputs share."""
        return self.dtype in K_QUANT_GROUPS

    @property
    def kept_group(self) -> bool:
        """Whether it is one of KEPT_GROUPS."""
        return self.dtype in KEPT_GROUPS

    @property
    def padded(self) -> int:
        """Elements in a row once it is filled up: inputs for `output`, outputs for `input`."""
        outputs, inputs = self.shape
        if self.orientation == "input":
            line = ALIGNMENT * 8 // DTYPE_BITS[self.dtype]
            return round_up(outputs, K_QUANT_TILES.get(self.dtype, line))
        least = {"f32": 16, "bf16": 32, "int8": UNIT, "int4": WIDE_UNIT // 2}
        least |= dict.fromkeys(KEPT_GROUPS, UNIT)
        unit = max(least.get(self.dtype, SUPERBLOCK), self.group)
        return round_up(inputs, unit)

    @property
    def groups(self) -> int:
        """Groups of input channels, the last one filled up; 0 for f32 and bf16.

        For `output` each row holds that many scales, for `input` there are that many panels.
        """
        if not self.group:
            return 0
        inputs = self.padded if self.orientation == "output" else self.shape[1]
        return -(-inputs // self.group)

    @property
    def number_bytes(self) -> int:
        """Bytes of the numbers of one row, without scales."""
        return self.padded * DTYPE_BITS[self.dtype] // 8

    @property
    def header_bytes(self) -> int:
        """Bytes of scales (and minima) of a row or panel; 0 of output-major K-quants."""
        if not self.quantized:
            return 0
        if self.k_quant and self.orientation == "output":
            return 0
        if self.k_quant:
            return self.padded // K_QUANT_TILES[self.dtype] * K_QUANT_HEADERS[self.dtype]
        columns = self.groups if self.orientation == "output" else self.padded
        nbytes = columns * 2 * (1 + self.minimum)
        return nbytes if self.kept_group else round_up(nbytes, 16)

    @property
    def numbers_at(self) -> int:
        """Where in a row or panel its numbers begin.

        Output-major int8 and int4 begin on a cache line, so that no vector of them crosses one:
        behind the scales, which are then prefetched with the numbers in one go, or where that would
        take a line more, in front of them. Those of KEPT_GROUPS stand in front of the scales.
        """
        if self.kept_group:
            return 0
        if not self.quantized or self.k_quant or self.orientation == "input":
            return self.header_bytes
        behind = round_up(self.header_bytes, ALIGNMENT)
        return behind if behind + self.number_bytes <= self.row_bytes else 0

    @property
    def scales_at(self) -> int:
        """Where in a row or panel its scales begin."""
        return 0 if self.numbers_at else self.number_bytes

    @property
    def row_bytes(self) -> int:
        """Distance from one row to the next; for `output` the scales are inside."""
        if self.orientation == "input":
            lines = self.number_bytes // ALIGNMENT
            return ALIGNMENT * (lines + (lines % SAME_SETS == 0))
        if self.k_quant:
            scales = self.padded // SUPERBLOCK * K_QUANT_SCALES[self.dtype]
            return round_up(self.number_bytes + scales, HALF_LINE)
        if self.kept_group:
            return self.number_bytes + self.header_bytes
        return round_up(self.header_bytes + self.number_bytes, ALIGNMENT)

    @property
    def panel_bytes(self) -> int:
        """`input` and quantised: a header and the `group` rows that it serves; otherwise a row."""
        if self.orientation == "output" or not self.quantized:
            return self.row_bytes
        return self.header_bytes + self.group * self.row_bytes

    @property
    def factor_bytes(self) -> int:
        """Input-major K-quants: bytes of what the scales (and minima) of 256 inputs multiply."""
        if not self.k_quant or self.orientation == "output":
            return 0
        return self.padded * 2 * (1 + self.minimum)

    @property
    def factors_nbytes(self) -> int:
        """Bytes behind the panels: `factor_bytes` for each 256 inputs."""
        return self.shape[1] // SUPERBLOCK * self.factor_bytes

    @property
    def nbytes(self) -> int:
        """Bytes of the whole matrix, a multiple of 64."""
        outputs, inputs = self.shape
        if self.orientation == "output":
            return round_up(outputs * self.row_bytes, ALIGNMENT)
        panels = self.groups if self.quantized else inputs
        return panels * self.panel_bytes + self.factors_nbytes

    @property
    def dense_nbytes(self) -> int:
        """Bytes of the same numbers in a dense pack: what shares of weights are stated of."""
        return replace(self, orientation="output").nbytes

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that stands in a shard's metadata."""
        return {
            "dtype": self.dtype,
            "orientation": self.orientation,
            "shape": list(self.shape),
            "group": self.group,
            "minimum": self.minimum,
        }

    @classmethod
    def from_dict(cls, value: Any) -> Layout:
        """Read what `to_dict` wrote.

        Raises:
            FormatError: a field is missing, surplus, of the wrong type or contradicts another.
        """
        if not isinstance(value, Mapping) or set(value) != set(_FIELD_TYPES):
            raise FormatError(f"a layout must have exactly the keys {', '.join(_FIELD_TYPES)}.")
        for key, kind in _FIELD_TYPES.items():
            if type(value[key]) is not kind:
                raise FormatError(
                    f"{key} {show(value[key])} of a layout is not of type {kind.__name__}."
                )
        if not all(type(side) is int for side in value["shape"]):
            raise FormatError(
                f"shape {show(value['shape'])} of a layout does not hold whole numbers."
            )
        fields = {**value, "shape": tuple(value["shape"])}
        return cls(**fields)


_MINIMA = {
    "int4": (False, True), "int5": (False, True), "int2k": (True,), "int4k": (True,),
    "int5k": (True,),
}  # fmt: skip
_FIELD_TYPES = {"dtype": str, "orientation": str, "shape": list, "group": int, "minimum": bool}


@dataclass(frozen=True)
class PackedMatrix:
    """One matrix in memory as the kernels want it."""

    layout: Layout
    data: npt.NDArray[np.uint8]  # (layout.nbytes,), starts at a 64-byte boundary
