"""Reference: every operation under its name, each a plain function of NumPy.

The tests hold each kernel against its twin here. Operations are computed at once instead of
recorded; `operations` says what each one does, and the functions stand in `dense` (every channel),
`selection` (which channels) and `sparse` (active channels).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from sparity_edge.arrays import Floats
from sparity_edge.kernels.reference import dense, selection, sparse
from sparity_edge.kernels.reference.screened import screened
from sparity_edge.kernels.sparse_vector import Selector, SparseVector


class Reference:
    """`Operations` computed as they are called, and the kernels that they are recorded as."""

    embed = staticmethod(dense.embed)
    rmsnorm = staticmethod(dense.rmsnorm)
    linear = staticmethod(dense.linear)
    rope = staticmethod(dense.rope)
    append = staticmethod(dense.append)
    attention = staticmethod(dense.attention)
    silu = staticmethod(dense.silu)
    silu_mul = staticmethod(dense.silu_mul)
    relu = staticmethod(dense.relu)
    scale = staticmethod(dense.scale)
    multiply = staticmethod(dense.multiply)
    neurons = staticmethod(sparse.neurons)
    tally = staticmethod(sparse.tally)
    screened = staticmethod(screened)
    # What only a recorded program has: decoding with an active list.
    select_threshold = staticmethod(selection.select_threshold)
    select_top = staticmethod(selection.select_top)
    select_n_of_m = staticmethod(selection.select_n_of_m)
    vmmsp = staticmethod(sparse.vmmsp)
    spvmm = staticmethod(sparse.spvmm)
    ffn = staticmethod(sparse.ffn)

    def together(self) -> AbstractContextManager[None]:
        """Operations inside do not depend on each other."""
        return nullcontext()

    def sparsify(
        self, x: Floats, selector: Selector, exponents: Floats | None = None
    ) -> SparseVector:
        """x - centre with zeros in place of what is skipped."""
        return selection.sparsify(x, selector, exponents)
