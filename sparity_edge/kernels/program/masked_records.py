"""Operations on sparse vectors, as `Program` records them: lists for one token, zeros for many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sparity_edge.arrays import Floats, Integers, rows
from sparity_edge.kernels.active_list import ActiveList, empty_list
from sparity_edge.kernels.batch import masks as _masks
from sparity_edge.kernels.batch import union as _unite
from sparity_edge.kernels.decode import gates as _gates
from sparity_edge.kernels.decode.ffn import Bundle
from sparity_edge.kernels.operations import Matrix
from sparity_edge.kernels.program.batch_records import BatchProgram
from sparity_edge.kernels.program.sparse_records import every_channel
from sparity_edge.kernels.sparse_vector import MOST_LISTED, Selector, SparseVector

KERNELS = (
    _gates.silu,
    _gates.multiply,
    _masks.sparsify_threshold,
    _masks.sparsify_top,
    _masks.subtract,
    _masks.tally,
)


class ThinProgram(BatchProgram):
    """What `Program` adds for plans."""

    linear: Callable[..., None]
    _gemm: Callable[..., None]
    _decoding: bool

    def silu(self, x: Floats, out: Floats) -> None:
        """x / (1 + exp(-x))."""
        self._blockwise(_gates.silu, x, out)

    def sparsify(
        self, x: Floats, selector: Selector, exponents: Floats | None = None
    ) -> SparseVector:
        """Sort the channels of x."""
        if len(x) == 1:
            active = empty_list(x.shape[1])
            if selector.kept is not None:
                self.select_top(x, selector.kept, active, selector.weights, selector.centre)
            else:
                assert selector.thresholds is not None
                self.select_threshold(
                    x,
                    selector.thresholds,
                    active,
                    selector.centre,
                    selector.coefficients,
                    exponents,
                )
            return SparseVector(x, selector.centre, active[:2].view(np.int64), active=active)
        tokens, size = x.shape
        values, counts = rows(tokens, size), np.zeros(tokens, dtype=np.int64)
        places = (x, x.strides[0], selector.centre, size, values, values.strides[0], counts)
        if selector.kept is not None:
            self._need_scratch(8 * (size + 32))
            rule = (selector.weights, selector.kept)
            self._record(_masks.sparsify_top, tokens, *places, *rule, writes=values)
        else:
            stride = 0 if exponents is None else exponents.strides[0]
            scaled = (selector.thresholds, selector.coefficients, exponents, stride)
            self._record(_masks.sparsify_threshold, tokens, *places, *scaled, writes=values)
        if not self._decoding:
            return SparseVector(x, selector.centre, counts, values=values)
        active = self._union(values)
        return SparseVector(x, selector.centre, active[:2].view(np.int64), active, values)

    def _union(self, values: Floats) -> ActiveList:
        """The list of the channels that are not zero in every row."""
        tokens, size = values.shape
        active = empty_list(size)
        most = int(MOST_LISTED * size)
        self._afterwards(
            lambda: self._record(
                _unite.unite, 1, values, values.strides[0], tokens, size, active, most
            )
        )
        return active

    def tally(self, vectors: Sequence[SparseVector], out: Integers) -> None:
        """out[i] = sum of the counts of vectors[i]."""
        lists = np.array([each.counts.ctypes.data for each in vectors], dtype=np.int64)
        self._kept += [each.counts for each in vectors]
        tokens = len(vectors[0].counts) if vectors else 0
        self._record(_masks.tally, 1, lists, out, tokens, len(lists))

    def neurons(
        self,
        x: Floats,
        gate: Floats | SparseVector,
        bundle: Bundle,
        up: Floats,
        middle: Floats,
        out: Floats,
    ) -> None:
        """out += (gate * (x W_up^T)) W_down^T over active neurons."""
        if len(x) == 1:
            if isinstance(gate, SparseVector):
                assert gate.active is not None
                self.ffn(x, gate.x, bundle, gate.active, out, gate.centre, accumulate=True)
            else:
                self.ffn(x, gate, bundle, every_channel(gate.shape[1]), out, accumulate=True)
            return
        values = gate if isinstance(gate, np.ndarray) else gate.values
        assert values is not None
        if self._decoding:
            all_of_them = every_channel(values.shape[1])
            active = all_of_them if isinstance(gate, np.ndarray) else gate.active
            assert active is not None
            self._ffn_each(x, values, bundle, active, out)
            return
        self.linear(x, bundle.up_rows, up)
        self._blockwise(_gates.multiply, up, middle, values)
        self.linear(middle, bundle.down_rows, out, accumulate=True)

    def _sparse_linear(
        self, x: SparseVector, matrix: Matrix, out: Floats, bias: Floats | None, accumulate: bool
    ) -> None:
        if x.values is None:
            self._sparse_vmm(x, matrix, out, bias, accumulate)
        elif x.active is None:
            self._gemm(x.values, matrix, out, bias, accumulate)
        else:
            self._spvmm_each(x.values, matrix, x.active, out, bias, accumulate)

    def _sparse_vmm(
        self, x: SparseVector, matrix: Matrix, out: Floats, bias: Floats | None, accumulate: bool
    ) -> None:
        """One token's product with an input-major matrix."""
        assert x.active is not None
        values = x.x
        if x.centre is not None:
            values = rows(1, x.x.shape[1])
            self._record(
                _masks.subtract, 1, x.x, 0, x.centre, x.x.shape[1], values, writes=values
            )  # fmt: skip
            self._first = True  # the product waits for the difference
        self.spvmm(values, matrix, x.active, [out], [bias], accumulate)

    def _blockwise(self, kernel: Any, x: Floats, out: Floats, y: Floats | None = None) -> None:
        tokens, width = x.shape
        blocks = -(-width // _gates.BLOCK)
        more = () if y is None else (y, y.strides[0])
        places = (x, x.strides[0], out, out.strides[0], width, blocks, *more)
        self._record(kernel, tokens * blocks, *places, writes=out)
