"""Reference: what every kernel computes, in plain NumPy and at once instead of recorded.

The tests hold each kernel against its twin here, and a model runs on this class as well as on
`program.Program`. Slow and simple on purpose; imports no Numba.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import Floats, Integers, Numbers
from sparity_edge.kernels.kv_format import floats, head_dim_of, write
from sparity_edge.kernels.operations import Operations
from sparity_edge.kernels.reference.masked import ThinReference
from sparity_edge.kernels.reference.sparse import UpDown
from sparity_edge.kernels.sparse_vector import SparseVector
from sparity_edge.packed.bundle import PackedBundle, split
from sparity_edge.packed.layout import (
    SUPERBLOCK,
    SUPERBLOCK_SCALES,
    Layout,
    PackedMatrix,
    elements_in_blocks,
)
from sparity_edge.progress import Progress


class ReferenceMachine:
    """A `Machine` of plain NumPy; matrices are unpacked to float32 when they are first named."""

    threads = 1

    def matrix(self, packed: PackedMatrix) -> Floats:
        """The values of the matrix."""
        return unpack(packed)

    def bundle(self, packed: PackedBundle) -> UpDown:
        """The values of up and down."""
        up, down = split(packed)
        return unpack(up), unpack(down)

    def prepare(
        self, forward: Callable[[Operations], None], decoding: bool = False
    ) -> Callable[[bool], None]:
        """Nothing can be prepared: `forward` computes each time it is run."""
        return lambda _may_take_long: forward(Reference(decoding))

    def compile(self, progress: Progress) -> None:
        """Nothing to compile."""

    def close(self) -> None:
        """Nothing to give back."""


class Reference(ThinReference):
    """`Operations` computed as they are called; see there for what each one does.

    Args:
        decoding: every row is a token of a sequence of its own.
    """

    def __init__(self, decoding: bool = False) -> None:
        self._decoding = decoding

    @contextmanager
    def together(self) -> Iterator[None]:
        """Operations inside do not depend on each other."""
        yield

    def embed(self, ids: Integers, table: Floats, out: Floats) -> None:
        """Rows `ids` of the table."""
        out[:] = table[ids]

    def rmsnorm(self, x: Floats, weight: Floats, epsilon: float, out: Floats) -> None:
        """x / sqrt(mean(x**2) + epsilon) * weight for every row."""
        mean = np.mean(x * x, axis=1, keepdims=True, dtype=np.float32)
        out[:] = x / np.sqrt(mean + np.float32(epsilon)) * weight

    def linear(
        self,
        x: Floats | SparseVector,
        matrix: Floats,
        out: Floats,
        bias: Floats | None = None,
        accumulate: bool = False,
    ) -> None:
        """out = x W^T (+ bias) (+ out)."""
        values = x if isinstance(x, np.ndarray) else x.values
        assert values is not None
        result = values @ matrix.T
        if bias is not None:
            result += bias
        out[:] = out + result if accumulate else result

    def rope(self, x: Floats, table: Floats, position: Integers, heads: int, out: Floats) -> None:
        """Rotate the heads of every row by its position."""
        tokens, size = x.shape
        turned = _rotate(x.reshape(tokens, heads, size // heads), table, int(position[0]))
        out[:] = turned.reshape(tokens, size)

    def append(
        self,
        keys: Floats,
        values: Floats,
        table: Floats,
        position: Integers,
        cached_keys: Numbers,
        cached_values: Numbers,
    ) -> None:
        """Write rotated keys and values into the rows of the cache (heads, capacity)."""
        heads, head_dim = len(cached_keys), head_dim_of(cached_keys)
        start, tokens = int(position[0]), len(keys)
        turned = _rotate(keys.reshape(tokens, heads, head_dim), table, start)
        write(cached_keys[:, start : start + tokens], turned.swapaxes(0, 1))
        plain = values.reshape(tokens, heads, head_dim)
        write(cached_values[:, start : start + tokens], plain.swapaxes(0, 1))

    def attention(
        self,
        q: Floats,
        cached_keys: Numbers,
        cached_values: Numbers,
        position: Integers,
        window: int | None,
        out: Floats,
    ) -> None:
        """Softmax(q K^T / sqrt(head_dim)) V over the positions each row of q may see."""
        tokens, size = q.shape
        kv_heads, head_dim = len(cached_keys), head_dim_of(cached_keys)
        share = size // head_dim // kv_heads
        end = int(position[0]) + tokens
        queries = q.reshape(tokens, kv_heads, share, head_dim)
        scores = np.einsum("tgsd,gpd->gstp", queries, floats(cached_keys[:, :end]))
        scores *= np.float32(head_dim**-0.5)
        at = np.arange(end - tokens, end)[:, None]
        seen = np.arange(end)[None, :] <= at
        if window is not None:
            seen &= np.arange(end)[None, :] > at - window
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = np.einsum("gstp,gpd->tgsd", weights, floats(cached_values[:, :end]))
        out[:] = mixed.reshape(tokens, size)

    def silu_mul(self, gate: Floats, up: Floats, out: Floats) -> None:
        """silu(gate) * up."""
        with np.errstate(over="ignore"):  # exp(-gate) may be inf, which gives the right 0
            out[:] = gate / (1 + np.exp(-gate)) * up


def _rotate(heads: Floats, table: Floats, start: int) -> Floats:
    """Rotate (tokens, heads, head_dim) pairs (i, i + head_dim / 2) by position."""
    half = heads.shape[-1] // 2
    rows = table[start : start + len(heads), None, :]
    cosine, sine = rows[..., :half], rows[..., half:]
    a, b = heads[..., :half], heads[..., half:]
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)


def unpack(packed: PackedMatrix) -> Floats:
    """The values of a packed matrix, (outputs, inputs) float32, whatever its layout."""
    layout = packed.layout
    outputs, inputs = layout.shape
    if layout.orientation == "output":
        rows = packed.data[: outputs * layout.row_bytes].reshape(outputs, layout.row_bytes)
        if layout.superblocks:
            return _superblocks(rows, layout)
        numbers = _numbers(rows[:, layout.numbers_at :][:, : layout.number_bytes], layout)
        headers = rows[:, layout.scales_at :][:, : layout.header_bytes]
        values = _scale(numbers, headers, layout, layout.groups) if layout.quantized else numbers
        return np.ascontiguousarray(values[:, :inputs])
    panels = packed.data.reshape(-1, layout.panel_bytes)
    rows = panels[:, layout.header_bytes :].reshape(-1, layout.row_bytes)
    numbers = _numbers(rows[:, : layout.number_bytes], layout)
    if not layout.quantized:
        return np.ascontiguousarray(numbers[:inputs, :outputs].T)
    # A header serves the rows of its panel: turn panels so that groups run along the last axis.
    turned = numbers.reshape(len(panels), layout.group, -1).transpose(2, 0, 1)
    header = panels[:, : layout.header_bytes].copy().view(np.float16).astype(np.float32)
    scales = header.reshape(len(panels), -1, layout.padded)  # scales, then minima if there are any
    values = turned * scales[:, 0].T[..., None]
    if layout.minimum:
        values += scales[:, 1].T[..., None]
    elif layout.dtype == "int4":
        values -= 8 * scales[:, 0].T[..., None]
    return np.ascontiguousarray(values.reshape(layout.padded, -1)[:outputs, :inputs])


def _numbers(rows: npt.NDArray[np.uint8], layout: Layout) -> Floats:
    """The numbers of packed rows as float32, before scales."""
    rows = np.ascontiguousarray(rows)
    if layout.orientation == "output" and layout.quantized:
        return _blocks(rows, layout)
    if layout.dtype == "int8":
        return rows.view(np.int8).astype(np.float32)
    if layout.dtype == "int4":
        units = rows.reshape(len(rows), -1, 1, 16)
        nibbles = np.concatenate([units & 15, units >> 4], axis=2)
        return nibbles.reshape(len(rows), -1).astype(np.float32)
    if layout.dtype == "bf16":
        return (rows.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return rows.view(np.float32)


def _blocks(rows: npt.NDArray[np.uint8], layout: Layout) -> Floats:
    """Blocks of 16 groups of 32, four elements of each by turns, and what is left behind them."""
    count, elements = len(rows), elements_in_blocks(layout.padded)
    fours: npt.NDArray[Any]
    rest: npt.NDArray[Any]
    if layout.dtype == "int8":
        fours = rows[:, :elements].view(np.int8).reshape(count, elements // 512, 8, 16, 4)
        rest = rows[:, elements:].view(np.int8)
    else:
        packed = rows[:, : elements // 2].reshape(count, elements // 512, 4, 16, 4)
        fours = np.concatenate([packed & 15, packed >> 4], axis=2)
        rest = _wide_units(rows[:, elements // 2 :])
    parts = [fours.swapaxes(2, 3).reshape(count, elements), rest]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _wide_units(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Nibbles in units of 128, and perhaps one of 64 behind them."""
    count, width = rows.shape
    whole = width // 64 * 64
    wide = rows[:, :whole].reshape(count, whole // 64, 1, 8, 2, 4)
    wide = np.concatenate([wide & 15, wide >> 4], axis=2).swapaxes(3, 4)
    last = rows[:, whole:].reshape(count, (width - whole) // 32, 1, 4, 2, 4)
    last = np.concatenate([last & 15, last >> 4], axis=2).transpose(0, 1, 4, 2, 3, 5)
    parts = [wide.reshape(count, 2 * whole), last.reshape(count, 2 * (width - whole))]
    return np.concatenate(parts, axis=1)


def _scale(numbers: Floats, headers: npt.NDArray[np.uint8], layout: Layout, groups: int) -> Floats:
    """Apply the scales (and minima) of output-major rows."""
    header = np.ascontiguousarray(headers).view(np.float16).astype(np.float32)
    scales = header[:, :groups, None]
    values = numbers.reshape(len(numbers), groups, layout.group) * scales
    if layout.minimum:
        values += header[:, groups : 2 * groups, None]
    elif layout.dtype == "int4":
        values -= 8 * scales
    return values.reshape(len(numbers), -1)


def _superblocks(rows: npt.NDArray[np.uint8], layout: Layout) -> Floats:
    """The values of output-major rows of int4k or int6k."""
    size = layout.padded // 512 * 512
    numbers, scales = rows[:, : layout.number_bytes], rows[:, layout.number_bytes :]
    parts = []
    for start, stop, groups in ((0, size, 16), (size, layout.padded, 8)):
        blocks = (stop - start) // (32 * groups)
        if blocks:
            first, last = (at * layout.number_bytes // layout.padded for at in (start, stop))
            packed = numbers[:, first:last].reshape(len(rows), blocks, -1, 64)
            first, last = (
                at // SUPERBLOCK * SUPERBLOCK_SCALES[layout.dtype] for at in (start, stop)
            )
            behind = scales[:, first:last].reshape(len(rows), blocks, -1)
            of_block = _int4k_blocks if layout.minimum else _int6k_blocks
            parts.append(of_block(packed, behind, groups).reshape(len(rows), -1))
    return np.concatenate(parts, axis=1)


def _fours(vectors: npt.NDArray[np.uint8], groups: int) -> Floats:
    """(rows, blocks, groups, half of a group, its 16 inputs) of vectors in which fours take turns.

    Of 16 groups the vectors of first halves come first, of 8 groups they stand side by side.
    """
    shape = (2, 4, 16, 4) if groups == 16 else (4, 2, 8, 4)
    order = (0, 1, 4, 2, 3, 5) if groups == 16 else (0, 1, 4, 3, 2, 5)
    turned = vectors.reshape(*vectors.shape[:2], *shape).transpose(order)
    return turned.reshape(*vectors.shape[:2], groups, 2, 16).astype(np.float32)


def _factors(behind: npt.NDArray[np.uint8], count: int) -> Floats:
    """The last `count` float16 of each block."""
    return behind[:, :, -2 * count :].copy().view(np.float16).astype(np.float32)


def _int4k_blocks(
    packed: npt.NDArray[np.uint8], behind: npt.NDArray[np.uint8], groups: int
) -> Floats:
    vectors = np.stack([packed & 15, packed >> 4], axis=3)
    bits = np.unpackbits(behind[:, :, : groups * 3 // 2], axis=2, bitorder="little")
    sixes = bits.reshape(*bits.shape[:2], groups, 2, 6) @ (1 << np.arange(6))
    factors = _factors(behind, groups // 4).reshape(*bits.shape[:2], -1, 1, 2)
    scaled = factors * sixes.reshape(*bits.shape[:2], groups // 8, 8, 2).astype(np.float32)
    scaled = scaled.reshape(*bits.shape[:2], groups, 1, 1, 2)
    return scaled[..., 0] * _fours(vectors, groups) - scaled[..., 1]


def _int6k_blocks(
    packed: npt.NDArray[np.uint8], behind: npt.NDArray[np.uint8], groups: int
) -> Floats:
    threes = packed.reshape(*packed.shape[:2], -1, 3, 64)
    top = threes >> 6
    last = top[..., 0, :] | top[..., 1, :] << 2 | top[..., 2, :] << 4
    vectors = np.concatenate([threes & 63, last[..., None, :]], axis=3)
    scales = behind[:, :, : 2 * groups].copy().view(np.int8).astype(np.float32)
    scales = scales.reshape(*packed.shape[:2], 2, groups).swapaxes(2, 3)
    factors = np.repeat(_factors(behind, groups // 8), 8, axis=2)
    return (factors[..., None] * scales)[..., None] * (_fours(vectors, groups) - 32)
