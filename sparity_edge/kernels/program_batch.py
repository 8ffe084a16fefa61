"""Products of several tokens that read each weight once, as `Program` records them.

They do for each token what `vmm`, `spvmm` and `ffn` do for one, in the same order, so that dense
results are the same bits in a batch as alone; from one token to the next the rows stay in cache.
Prompts go through `gemm` instead, which unpacks rows once for all tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sparity_edge.kernels import activations as _activations
from sparity_edge.kernels import batch as _batch
from sparity_edge.kernels import ffn as _ffn
from sparity_edge.kernels import spvmm as _spvmm
from sparity_edge.kernels.active import ActiveList
from sparity_edge.kernels.buffers import Floats
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.program_sparse import MOST_PARTS, SparseProgram, _parts, every_channel
from sparity_edge.layout import Layout, round_up


class BatchProgram(SparseProgram):
    """What `Program` adds for several tokens, each of a sequence of its own."""

    _digits: dict[tuple[int, int | str, int], tuple[Any, ...]]
    _new_digits: Callable[[Layout], tuple[int, tuple[Any, ...]]]
    _vmm_steps: Callable[[Layout], tuple[int, int, int]]
    _word: Callable[[Any], int]

    def _vmm_each(
        self, x: Floats, matrix: Matrix, out: Floats, bias: Floats | None, accumulate: bool
    ) -> None:
        """out = x W^T (+ bias) (+ out), all of W."""
        layout = matrix.layout
        if layout.orientation == "input":
            self._spvmm_each(x, matrix, every_channel(layout.shape[1]), out, bias, accumulate)
            return
        chunks, step, ahead = self._vmm_steps(layout)
        each = [
            (matrix, x[t], bias, out[t], accumulate, step, ahead, *digits)
            for t, digits in enumerate(self._digits_of_each(x, layout))
        ]
        streams = (matrix.data_address, step * layout.row_bytes)
        table = self._table(each)
        self._record(
            _batch.vmm_each, chunks, table, len(x), table.strides[0], writes=out, streams=streams
        )

    def _spvmm_each(
        self,
        x: Floats,
        matrix: Matrix,
        active: ActiveList,
        out: Floats,
        bias: Floats | None,
        accumulate: bool,
    ) -> None:
        """The same over active inputs of an input-major W; the others of x are zero."""
        layout = matrix.layout
        panels = -(-layout.padded // _spvmm.MOST_COLUMNS)
        parts = max(1, _parts(layout, MOST_PARTS) // panels)
        places = _spvmm.table(layout.shape[1])
        share = self._shares(places[-1], len(x))
        sums, stride = self._sums_of_each(parts, layout, len(x))
        each = [
            (matrix, x[t], active, parts, panels, sums[t], stride, *places) for t in range(len(x))
        ]
        table = self._table(each)
        self._record(_batch.spvmm_each, parts * panels, table, len(x), table.strides[0], share)
        for t, own in enumerate(sums):
            self._add_parts(own, stride, parts, [out[t : t + 1]], [bias], accumulate)

    def _ffn_each(
        self, x: Floats, gate: Floats, bundle: _ffn.Bundle, active: ActiveList, out: Floats
    ) -> None:
        """out += sum over active i of gate_i (up_i . x) down_i; other gates are zero."""
        layout = bundle.layout
        parts = _parts(layout.up, MOST_PARTS)
        share = self._shares(_ffn.INTEGERS + 4 * layout.down.padded, len(x))
        sums, stride = self._sums_of_each(parts, layout.down, len(x))
        digits = self._digits_of_each(x, layout.up)
        each = [
            (bundle.up_rows, x[t], None, None, 0, 0, 0, *digits[t],
             bundle.address, gate[t], None, active, parts, sums[t], stride)
            for t in range(len(x))
        ]  # fmt: skip
        table = self._table(each)
        self._record(_batch.ffn_each, parts, table, len(x), table.strides[0], share)
        self._kept.append(bundle)
        for t, own in enumerate(sums):
            self._add_parts(own, stride, parts, [out[t : t + 1]], None, True)

    def _shares(self, nbytes: int, tokens: int) -> int:
        """Have scratch memory for every token; returns how far apart their shares are."""
        share = round_up(nbytes, 64) + 64
        self._need_scratch(tokens * share)
        return share

    def _sums_of_each(self, parts: int, layout: Layout, tokens: int) -> tuple[list[Any], int]:
        """Memory for the sums of parts of every token, and how far apart parts are."""
        sums, stride = self._part_sums(parts, layout, tokens)
        return np.split(sums, tokens), stride

    def _digits_of_each(self, x: Floats, layout: Layout) -> Sequence[tuple[Any, ...]]:
        """What `_split` gives, for every row of x; zeros where rows of floats need nothing."""
        if not layout.quantized:
            return [(0, 0, 0)] * len(x)
        order, first = self._new_digits(layout)
        key = (int(x.ctypes.data), order, layout.padded)
        if key not in self._digits:
            digits = (first, *(self._new_digits(layout)[1] for _ in range(1, len(x))))
            each = [(x[t], layout.padded, order, *digits[t]) for t in range(len(x))]
            table = self._table(each)
            chunks = -(-layout.padded // _activations.BLOCK)
            self._first = True  # it waits for x, and what follows waits for it
            self._record(
                _batch.split_each, len(x) * chunks, table, len(x), table.strides[0], chunks
            )
            self._first = True
            self._digits[key] = digits
        return self._digits[key]

    def _table(self, each: Sequence[Sequence[Any]]) -> Any:
        """The arguments of a kernel for every token, (tokens, words)."""
        table = np.array([[self._word(word) for word in words] for words in each], dtype=np.int64)
        self._kept.append(table)
        return table
