"""K-quants to bytes and back: the input-major columns of int4k and int6k.

Numbers and scales are those that a row has in the GGUF: scales of a group of inputs head their
panel, and what they are multiples of stands behind all panels, once for 256 inputs. docs/format.md
draws the tiles of columns. Moves values only, as kquant_bytes.py does for output-major rows;
`sparity_edge.kernels.reference.unpack` is the oracle of the reading here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.numbers.kquant_bytes import join_six_bits, split_six_bits
from converters.numbers.quantize import Quantized
from sparity_edge.packed.layout import K_QUANT_TILES, SUPERBLOCK, Layout

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Columns:
    """Views of the bytes of an input-major matrix, or of whole tiles of its columns."""

    header: Bytes  # (panels, bytes)
    rows: Bytes  # (panels, group, bytes), numbers only
    factors: Bytes  # (superblocks, 1 or 2, bytes)

    def cut(self, layout: Layout, start: int, stop: int) -> Columns:
        """Columns start:stop, which are borders of tiles of a matrix of this layout."""
        parts = []
        for each in (self.header, self.rows, self.factors):
            first, last = (at * each.shape[-1] // layout.padded for at in (start, stop))
            parts.append(each[..., first:last])
        return Columns(*parts)

    def fill(self, other: Columns) -> None:
        """Write the bytes of other views of this shape."""
        self.header[:], self.rows[:], self.factors[:] = other.header, other.rows, other.factors


def columns_of(data: Bytes, layout: Layout) -> Columns:
    """The parts of a matrix by itself."""
    end = layout.nbytes - layout.factors_nbytes
    panels = data[:end].reshape(layout.groups, layout.panel_bytes)
    rows = panels[:, layout.header_bytes :].reshape(len(panels), layout.group, -1)
    return Columns(
        panels[:, : layout.header_bytes],
        rows[:, :, : layout.number_bytes],
        factors_of(data[end:], layout),
    )


def factors_of(factors: Bytes, layout: Layout) -> Bytes:
    """The view (superblocks, 1 or 2, bytes) of what stands behind the panels."""
    return factors.reshape(layout.shape[1] // SUPERBLOCK, 1 + layout.minimum, -1)


def write_k_columns(columns: Columns, weights: Quantized, layout: Layout, start: int) -> None:
    """Put the output channels start ..., a border of tiles, at their places."""
    tile = K_QUANT_TILES[layout.dtype]
    assert start % tile == 0
    count = len(weights.numbers)
    filled = -(-count // tile) * tile
    place = columns.cut(layout, start, start + filled)
    scales = _by_inputs(weights.scales, filled)
    numbers = _by_inputs(weights.numbers.view(np.uint8), filled)
    if layout.dtype == "int4k":
        assert weights.minimums is not None
        header = _join_header(scales, _by_inputs(weights.minimums, filled))
        packed = _join_nibbles(numbers)
    else:
        header = scales.view(np.uint8)
        numbers[:, :count] += np.uint8(32)  # two's complement: -32..31 become 0..63
        packed = join_six_bits(_fours(numbers.reshape(len(numbers), -1, 4, 64)))
    assert weights.factors is not None
    factors = np.zeros((*weights.factors.shape[1:], filled), dtype="<f2")
    factors[:, :, :count] = weights.factors.transpose(1, 2, 0)
    rows = packed.reshape(*place.rows.shape)
    place.fill(Columns(header, rows, factors.view(np.uint8)))


def read_k_columns(columns: Columns, layout: Layout, start: int, stop: int) -> Quantized:
    """The output channels start:stop of what `write_k_columns` wrote."""
    tile = K_QUANT_TILES[layout.dtype]
    first, last = start // tile * tile, -(-stop // tile) * tile
    cut = columns.cut(layout, first, last)
    wanted = slice(start - first, stop - first)
    header = np.ascontiguousarray(cut.header)
    rows = np.ascontiguousarray(cut.rows).reshape(layout.shape[1], -1)
    minimums = None
    if layout.dtype == "int4k":
        scales, least = _split_header(header)
        minimums = np.ascontiguousarray(least[:, wanted].T)
        numbers = _split_nibbles(rows)
    else:
        scales = header.view(np.int8)
        vectors = split_six_bits(rows.reshape(len(rows), -1, 192))
        numbers = _fours(vectors).reshape(len(rows), -1)
        numbers = (numbers - np.uint8(32)).view(np.int8)
    factors = np.ascontiguousarray(cut.factors).view("<f2")[:, :, wanted]
    return Quantized(
        layout.dtype,
        layout.group,
        np.ascontiguousarray(numbers[:, wanted].T),
        np.ascontiguousarray(scales[:, wanted].T),
        minimums,
        np.ascontiguousarray(factors.transpose(2, 0, 1)),
    )


def _by_inputs(rows: Array, filled: int) -> Array:
    """(outputs, n) as (n, filled), zeros behind the last output."""
    columns = np.zeros((rows.shape[1], filled), dtype=rows.dtype)
    columns[:, : len(rows)] = rows.T
    return columns


def _fours(vectors: Bytes) -> Bytes:
    """(..., 64) with four by four fours in the other order; its own inverse."""
    fours = vectors.reshape(*vectors.shape[:-1], 4, 4, 4)
    return np.ascontiguousarray(fours.swapaxes(-3, -2)).reshape(vectors.shape)


def _join_nibbles(numbers: Bytes) -> Bytes:
    """(inputs, columns) of 0..15 to (inputs, columns / 2)."""
    halves = _fours(numbers.reshape(len(numbers), -1, 2, 64))
    joined: Bytes = halves[:, :, 0] | halves[:, :, 1] << np.uint8(4)
    return joined.reshape(len(numbers), -1)


def _split_nibbles(rows: Bytes) -> Bytes:
    packed = rows.reshape(len(rows), -1, 64)
    return _fours(np.stack([packed & 15, packed >> 4], axis=2)).reshape(len(rows), -1)


def _join_header(scales: Bytes, minimums: Bytes) -> Bytes:
    """Scales and minima (panels, columns), 0..63, to (panels, 1.5 columns)."""
    assert max(scales.max(), minimums.max()) < 64
    tops = (minimums >> 2).reshape(len(scales), -1, 2, 64)
    low = (scales | minimums << np.uint8(6)).reshape(len(scales), -1, 128)
    parts = [low, tops[:, :, 0] | tops[:, :, 1] << np.uint8(4)]
    return np.concatenate(parts, axis=2).reshape(len(scales), -1)


def _split_header(header: Bytes) -> tuple[Bytes, Bytes]:
    tiles = header.reshape(len(header), -1, 192)
    low, high = tiles[:, :, :128], tiles[:, :, 128:]
    tops = np.concatenate([high & np.uint8(15), high >> np.uint8(4)], axis=2)
    minimums, scales = low >> np.uint8(6) | tops << np.uint8(2), low & np.uint8(63)
    return scales.reshape(len(header), -1), minimums.reshape(len(header), -1)
