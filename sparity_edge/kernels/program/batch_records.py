"""Products of several tokens that read each weight once, as `Program` records them.

They do for each token what `vmm`, `spvmm` and `ffn` do for one, in the same order, so that dense
results are the same bits in a batch as alone; from one token to the next the rows stay in cache.
Prompts go through `gemm` instead, which unpacks rows once for all tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sparity_edge.arrays import Floats, round_up
from sparity_edge.kernels.active_list import ActiveList
from sparity_edge.kernels.batch import products as _batch
from sparity_edge.kernels.decode import activations as _activations
from sparity_edge.kernels.decode import ffn as _ffn
from sparity_edge.kernels.decode import spvmm as _spvmm
from sparity_edge.kernels.decode import vmm as _vmm
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.program.sparse_records import (
    MOST_PARTS,
    SparseProgram,
    _parts,
    every_channel,
    shares_of,
)
from sparity_edge.packed.layout import Layout


class BatchProgram(SparseProgram):
    """What `Program` adds for several tokens, each of a sequence of its own."""

    _digits: dict[tuple[int, int | str, int], tuple[Any, ...]]
    _new_digits: Callable[..., tuple[Any, ...]]
    _vmm_steps: Callable[[Layout], tuple[int, int]]
    _word: Callable[[Any], int]

    def _vmm_each(
        self, x: Floats, matrix: Matrix, out: Floats, bias: Floats | None, accumulate: bool
    ) -> None:
        """out = x W^T (+ bias) (+ out), all of W."""
        layout = matrix.layout
        if layout.orientation == "input":
            self._spvmm_each(x, matrix, every_channel(layout.shape[1]), out, bias, accumulate)
            return
        digits = self._digits_of_each(x, layout)
        chunks, step = self._vmm_steps(layout)
        table = self._table(matrix, x, bias, out, accumulate, step, _vmm.lead_of(layout), *digits)
        streams = (matrix.data_address, step * layout.row_bytes)
        self._record(_batch.vmm_each, chunks, *table, writes=out, streams=streams)

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
        parts, panels, columns = shares_of(layout)
        places = _spvmm.table(layout.shape[1])
        share = self._shares(places[-1], len(x))
        sums, stride = self._sums_of_each(parts, layout, len(x))
        table = self._table(matrix, x, active, parts, panels, columns, sums, stride, *places)
        self._record(_batch.spvmm_each, parts * panels, *table, share)
        self._add_parts_of_each(sums, stride, parts, out, bias, accumulate)

    def _ffn_each(
        self, x: Floats, gate: Floats, bundle: _ffn.Bundle, active: ActiveList, out: Floats
    ) -> None:
        """out += sum over active i of gate_i (up_i . x) down_i; other gates are zero."""
        layout = bundle.layout
        digits = self._digits_of_each(x, layout.up)
        parts = _parts(layout.up, MOST_PARTS)
        share = self._shares(_ffn.SCRATCH_BYTES, len(x))
        sums, stride = self._sums_of_each(parts, layout.down, len(x))
        table = self._table(
            bundle.up_rows, x, None, None, 0, 0, 0, *digits,
            bundle.address, gate, None, active, parts, sums, stride,
        )  # fmt: skip
        self._record(_batch.ffn_each, parts, *table, share)
        self._kept.append(bundle)
        self._add_parts_of_each(sums, stride, parts, out, None, True)

    def _shares(self, nbytes: int, tokens: int) -> int:
        """Have scratch memory for every token; returns how far apart their shares are."""
        share = round_up(nbytes, 64) + 64
        self._need_scratch(tokens * share)
        return share

    def _sums_of_each(self, parts: int, layout: Layout, tokens: int) -> tuple[Any, int]:
        """Memory for the sums of parts, a row for every token, and how far apart parts are."""
        sums, stride = self._part_sums(parts, layout, tokens)
        return sums.reshape(tokens, -1), stride

    def _add_parts_of_each(
        self,
        sums: Any,
        stride: int,
        parts: int,
        out: Floats,
        bias: Floats | None,
        accumulate: bool,
    ) -> None:
        for token, own in enumerate(sums):
            self._add_parts(own, stride, parts, [out[token : token + 1]], [bias], accumulate)

    def _digits_of_each(self, x: Floats, layout: Layout) -> tuple[Any, ...]:
        """What `_split` gives, a row for every row of x; zeros where numbers stay floats."""
        if not layout.quantized:
            return 0, 0, 0
        order = _activations.ORDERS.get(layout.dtype, _activations.IN_A_ROW)
        key = (self._word(x), order, layout.padded)
        if key not in self._digits:
            places = self._new_digits(layout, len(x))
            chunks = -(-layout.padded // _activations.BLOCK)
            table = self._table(x, layout.padded, order, *places)
            self._first = True  # it waits for x, and what follows waits for it
            self._record(_batch.split_each, len(x) * chunks, *table, chunks)
            self._first = True
            self._digits[key] = places
        return self._digits[key]

    def _table(self, *arguments: Any) -> tuple[Any, int, int]:
        """The arguments for every token, whose own are rows of arrays of two dimensions.

        Returns:
            The table (tokens, words), how many tokens, and the bytes from one to the next.
        """
        rows = [each if getattr(each, "ndim", 0) == 2 else None for each in arguments]
        tokens = max(len(each) for each in rows if each is not None)
        steps = np.array([0 if each is None else each.strides[0] for each in rows], dtype=np.int64)
        first = np.array([self._word(each) for each in arguments], dtype=np.int64)
        table = first + steps * np.arange(tokens)[:, None]
        return table, tokens, table.strides[0]
