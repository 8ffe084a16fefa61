"""Records of operations on sparse vectors: a list for one token, masks and a union for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparity_edge.arrays import Floats, Integers, round_up, rows
from sparity_edge.kernels.active_list import ActiveList, empty_list
from sparity_edge.kernels.batch import masks, union
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.program import batch, dense, elementwise, sparse
from sparity_edge.kernels.program.recorder import Recorder
from sparity_edge.kernels.sparse.ffn import Bundle
from sparity_edge.kernels.sparse_vector import MOST_LISTED, Selector, SparseVector


def sparsify_one(
    recorder: Recorder, x: Floats, selector: Selector, exponent: Floats | None
) -> SparseVector:
    """List the active channels of one token."""
    active, centre = empty_list(x.shape[1]), selector.centre
    if selector.kept is not None and selector.neighbours is not None:
        numbers = (int(selector.kept[0]), selector.neighbours)
        sparse.select_n_of_m(recorder, x, *numbers, active, selector.weights, centre)
    elif selector.kept is not None:
        sparse.select_top(recorder, x, selector.kept, active, selector.weights, centre)
    else:
        assert selector.thresholds is not None
        factors = (selector.coefficients, exponent)
        sparse.select_threshold(recorder, x, selector.thresholds, active, centre, *factors)
    counts = active[:2].view(np.int64)
    return SparseVector(x, centre, counts, active=active, exact=selector.exact)


def sparsify_many(
    recorder: Recorder,
    x: Floats,
    selector: Selector,
    exponents: Floats | None,
    decoding: bool,
) -> SparseVector:
    """Zeros in place of what each token skips; while decoding, the union of what none does."""
    tokens, size = x.shape
    values, counts = rows(tokens, size), np.zeros(tokens, dtype=np.int64)
    words: dict[str, Any] = {
        "x": x, "x_stride": x.strides[0], "centre": selector.centre, "size": size,
        "out": values, "out_stride": values.strides[0], "counts": counts,
    }  # fmt: skip
    rule: dict[str, Any] = {"weights": selector.weights, "kept": selector.kept}
    if selector.kept is not None and selector.neighbours is not None:
        recorder.need_scratch(4 * round_up(selector.neighbours, 16) + 128)
        rule["neighbours"] = selector.neighbours
        recorder.record(masks.sparsify_n_of_m, tokens, **words, **rule, writes=values)
    elif selector.kept is not None:
        recorder.need_scratch(8 * (size + 32))
        recorder.record(masks.sparsify_top, tokens, **words, **rule, writes=values)
    else:
        recorder.record(
            masks.sparsify_threshold, tokens, **words, thresholds=selector.thresholds,
            coefficients=selector.coefficients, exponents=exponents,
            exponent_stride=0 if exponents is None else exponents.strides[0], writes=values,
        )  # fmt: skip
    if not decoding:
        return SparseVector(x, selector.centre, counts, values=values)
    active = _union(recorder, values)
    counts = active[:2].view(np.int64)
    return SparseVector(x, selector.centre, counts, active, values, selector.exact)


def _union(recorder: Recorder, values: Floats) -> ActiveList:
    """The list of the channels that are not zero in every row."""
    tokens, size = values.shape
    active = empty_list(size)
    words: dict[str, Any] = {"values": values, "stride": values.strides[0], "tokens": tokens}
    words |= {"size": size, "active": active, "most_listed": int(MOST_LISTED * size)}
    recorder.afterwards(lambda: recorder.record(union.list_union, 1, **words))
    return active


def tally(recorder: Recorder, vectors: Sequence[SparseVector], out: Integers) -> None:
    """out[i] = sum of the counts of vectors[i]."""
    lists = recorder.pointing([each.counts for each in vectors])
    tokens = len(vectors[0].counts) if vectors else 0
    recorder.record(masks.tally, 1, lists=lists, tallies=out, tokens=tokens, size=len(lists))


def linear(
    recorder: Recorder,
    x: SparseVector,
    matrix: Matrix,
    out: Floats,
    bias: Floats | None,
    accumulate: bool,
) -> None:
    """out = x W^T (+ bias) (+ out) over active channels of x, less their centre."""
    if x.values is None:
        _linear_of_one(recorder, x, matrix, out, bias, accumulate)
    elif x.active is None:
        dense.gemm(recorder, x.values, matrix, out, bias, accumulate)
    else:
        batch.spvmm_each(recorder, x.values, matrix, x.active, out, bias, accumulate)


def _linear_of_one(
    recorder: Recorder,
    x: SparseVector,
    matrix: Matrix,
    out: Floats,
    bias: Floats | None,
    accumulate: bool,
) -> None:
    assert x.active is not None
    values = x.x
    if x.centre is not None:
        size = x.x.shape[1]
        values = rows(1, size)
        recorder.record(
            masks.subtract, 1, x=x.x, x_stride=0, centre=x.centre, size=size, out=values,
            writes=values,
        )  # fmt: skip
        recorder.barrier()  # the product waits for the difference
    sparse.spvmm(recorder, values, matrix, x.active, [out], [bias], accumulate)


def neurons_of_one(
    recorder: Recorder,
    x: Floats,
    gate: Floats | SparseVector,
    bundle: Bundle,
    out: Floats,
    relu_up: bool,
    accumulate: bool,
) -> None:
    """out = (gate * (x W_up^T)) W_down^T (+ out) over active neurons of one token."""
    if isinstance(gate, SparseVector):
        assert gate.active is not None
        values, active, centre, exact = gate.x, gate.active, gate.centre, gate.exact
    else:
        values, active, centre, exact = gate, sparse.every_channel(gate.shape[1]), None, False
    sparse.ffn(
        recorder, x, values, bundle, active, out, centre, accumulate=accumulate, relu_up=relu_up,
        by_channel=exact,
    )  # fmt: skip


def neurons_of_each(
    recorder: Recorder,
    x: Floats,
    gate: Floats | SparseVector,
    bundle: Bundle,
    out: Floats,
    relu_up: bool,
    accumulate: bool,
) -> None:
    """out = (gate * (x W_up^T)) W_down^T (+ out) over neurons active for one of the tokens."""
    if isinstance(gate, SparseVector):
        values, active, exact = gate.values, gate.active, gate.exact
    else:
        values, active, exact = gate, sparse.every_channel(gate.shape[1]), False
    assert values is not None
    assert active is not None
    batch.ffn_each(
        recorder, x, values, bundle, active, out, accumulate, relu_up=relu_up, by_channel=exact
    )


def neurons_of_many(
    recorder: Recorder,
    x: Floats,
    gate: Floats | SparseVector,
    bundle: Bundle,
    places: tuple[Floats, Floats],
    out: Floats,
    relu_up: bool,
    accumulate: bool,
) -> None:
    """out = (gate * (x W_up^T)) W_down^T (+ out); `places` is memory for up and for the middle."""
    values = gate if isinstance(gate, np.ndarray) else gate.values
    assert values is not None
    up, middle = places
    dense.gemm(recorder, x, bundle.up_rows, up, None, False)
    if relu_up:
        elementwise.relu(recorder, up, 0.0, up)
    elementwise.multiply(recorder, up, values, middle)
    dense.gemm(recorder, middle, bundle.down_rows, out, None, accumulate)
