"""Operations over active channels, as `Program` records them.

All are for one token: many tokens have many lists, and prefill stays dense.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

from sparity_edge.arrays import Floats, Integers, aligned_empty, round_up
from sparity_edge.kernels.active_list import ActiveList, full_list
from sparity_edge.kernels.decode import ffn as _ffn
from sparity_edge.kernels.decode import select as _select
from sparity_edge.kernels.decode import spvmm as _spvmm
from sparity_edge.kernels.decode import vmmsp as _vmmsp
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.packed.layout import Layout

# What plans of a model run; other kernels are compiled when they are first recorded.
KERNELS = (
    _select.select_threshold,
    _select.select_top,
    _spvmm.spvmm,
    _spvmm.add_parts,
    _ffn.ffn,
)
# Parts of a list: many enough that threads end together, few enough that adding their sums is
# nothing, half of which another core has written (gate of SmolLM2, half of its inputs: 16 parts
# 21 us, 8 parts 15, 4 parts 13); not less than these weights for each. With panels, chunks.
MOST_PARTS, MOST_CHUNKS = 8, 16
PART_WEIGHTS = 1 << 18


@functools.cache
def every_channel(size: int) -> ActiveList:
    """The list of all channels below `size`, always the same one: for dense products."""
    return full_list(size)


class SparseProgram:
    """What `Program` adds for active lists."""

    _record: Callable[..., None]
    _split: Callable[[Floats, Layout], tuple[Any, ...]]
    _need_scratch: Callable[[int], None]
    _first: bool
    _together: bool
    _after: list[Callable[[], None]]  # what has to wait for operations that go side by side

    def __init__(self) -> None:
        self._sums: dict[tuple[int, int], Any] = {}  # of parts, by their bytes

    def select_threshold(
        self,
        x: Floats,
        thresholds: Floats,
        out: ActiveList,
        centre: Floats | None = None,
        coefficients: Floats | None = None,
        exponent: Floats | None = None,
    ) -> None:
        """Channels with |x - centre| > threshold (x the factors of scale.py), or NaN."""
        factors = (coefficients, exponent)
        size = x.shape[1]
        self._record(_select.select_threshold, 1, x, centre, size, out, thresholds, *factors)

    def select_top(
        self,
        x: Floats,
        count: Integers,
        out: ActiveList,
        weights: Floats | None = None,
        centre: Floats | None = None,
    ) -> None:
        """The `count` channels of largest |x - centre| * weight."""
        size = x.shape[1]
        self._need_scratch(8 * (size + 32))
        self._record(_select.select_top, 1, x, centre, size, out, weights, count)

    def select_n_of_m(
        self, x: Floats, n: int, m: int, out: ActiveList, weights: Floats | None = None
    ) -> None:
        """The n channels of largest |x| * weight in each m neighbours."""
        size = x.shape[1]
        self._need_scratch(4 * round_up(m, 16) + 128)
        chunks = -(-size // (m * _select.GROUPS_IN_CHUNK))
        self._record(_select.select_n_of_m, chunks, x, None, size, out, weights, n, m)

    def vmmsp(
        self,
        x: Floats,
        matrix: Matrix,
        active: ActiveList,
        out: Floats,
        bias: Floats | None = None,
    ) -> None:
        """Active outputs of x W^T (+ bias); the others stay as they are."""
        parts = _parts(matrix.layout, 2 * MOST_PARTS)
        self._record(
            _vmmsp.vmmsp, parts, *self._products(x, matrix, bias, out), active, parts, writes=out
        )

    def spvmm(
        self,
        x: Floats,
        matrix: Matrix,
        active: ActiveList,
        outs: Sequence[Floats],
        biases: Sequence[Floats | None] | None = None,
        accumulate: bool = False,
    ) -> None:
        """x W^T over active inputs (+ bias) (+ outs), W stacked of as many matrices as `outs`."""
        layout = matrix.layout
        parts, panels, columns = shares_of(layout)
        *places, end = _spvmm.table(layout.shape[1])
        self._need_scratch(end)
        sums, stride = self._part_sums(parts, layout)
        streams = (0, 0)
        if active is every_channel(layout.shape[1]) and panels == 1:
            streams = (matrix.data_address, layout.nbytes // parts)
        self._record(
            _spvmm.spvmm, parts * panels, matrix, x, active, parts, panels, columns,
            sums, stride, *places, streams=streams,
        )  # fmt: skip
        self._add_parts(sums, stride, parts, outs, biases, accumulate)

    def ffn(
        self,
        x: Floats,
        gate: Floats,
        bundle: _ffn.Bundle,
        active: ActiveList,
        out: Floats,
        centre: Floats | None = None,
        accumulate: bool = False,
    ) -> None:
        """Sum over active i of (gate_i - centre_i) (up_i . x) down_i (+ out)."""
        parts = _parts(bundle.layout.up, MOST_PARTS)
        self._need_scratch(_ffn.SCRATCH_BYTES)
        sums, stride = self._part_sums(parts, bundle.layout.down)
        self._record(
            _ffn.ffn, parts, *self._products(x, bundle.up_rows, None, None),
            bundle.address, gate, centre, active, parts, sums, stride,
        )  # fmt: skip
        self._kept.append(bundle)
        self._add_parts(sums, stride, parts, [out], None, accumulate)

    _kept: list[Any]

    def _products(
        self, x: Floats, matrix: Matrix, bias: Floats | None, out: Floats | None
    ) -> tuple[Any, ...]:
        """The arguments that dot products read, as in `vmm`."""
        digits = self._split(x, matrix.layout) if matrix.layout.quantized else (0, 0, 0)
        return matrix, x, bias, out, 0, 0, 0, *digits

    def _part_sums(self, parts: int, layout: Layout, tokens: int = 1) -> tuple[Any, int]:
        """Memory for the sums of parts (of each of several tokens), and how far apart they are.

        Operations share it (they wait for the addition of the parts before), so that it stays in
        cache: 0.5 MB for each of 32 layers would come from memory every time.
        """
        stride = 4 * layout.padded + 64  # a power of two would fall on the same lines of L1
        nbytes = tokens * (parts * stride + 64)
        place = (len(self._after), nbytes)  # products side by side keep their sums apart
        if place not in self._sums:
            self._sums[place] = aligned_empty(nbytes)
        return self._sums[place], stride

    def _add_parts(
        self,
        sums: Any,
        stride: int,
        parts: int,
        outs: Sequence[Floats],
        biases: Sequence[Floats | None] | None,
        accumulate: bool,
    ) -> None:
        self._kept.append(sums)
        self._afterwards(
            lambda: self._record_add_parts(sums, stride, parts, outs, biases, accumulate)
        )

    def _afterwards(self, record: Callable[[], None]) -> None:
        """Record what has to wait: once for all operations that go side by side."""
        self._after.append(record)
        if not self._together:
            self._record_after()

    def _record_after(self) -> None:
        self._first = bool(self._after)
        inside, self._together = self._together, True
        for record in self._after:
            record()
        self._after, self._together = [], inside
        self._first = True

    def _record_add_parts(
        self,
        sums: Any,
        stride: int,
        parts: int,
        outs: Sequence[Floats],
        biases: Sequence[Floats | None] | None,
        accumulate: bool,
    ) -> None:
        start = int(sums.ctypes.data)
        for out, bias in zip(outs, biases or [None] * len(outs), strict=True):
            size = out.shape[1]
            chunks = -(-size // _spvmm.COLUMNS)
            arguments = (start, stride, parts, size, bias, accumulate, out)
            self._record(_spvmm.add_parts, chunks, *arguments, writes=out)
            start += 4 * size


def shares_of(layout: Layout) -> tuple[int, int, int]:
    """Of an input-sparse product: parts of the list, panels of columns, columns of a panel."""
    panels = -(-layout.padded // _spvmm.MOST_COLUMNS)
    parts = max(2, MOST_CHUNKS // panels) if panels > 1 else _parts(layout, MOST_PARTS)
    return parts, panels, round_up(-(-layout.padded // panels), _spvmm.COLUMNS)


def _parts(layout: Layout, most: int) -> int:
    """Into how many parts a list is cut: depends on the shape alone, so that results do too.

    A power of two, which two or four threads share evenly.
    """
    outputs, inputs = layout.shape
    parts = max(2, min(most, outputs * inputs // PART_WEIGHTS))
    return 1 << round(math.log2(parts))
