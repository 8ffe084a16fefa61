"""Records of operations on sparse vectors: lists for tokens that are decoded, masks for prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparity_edge.arrays import Floats, Integers, round_up, rows
from sparity_edge.kernels.active_list import ActiveList, empty_lists
from sparity_edge.kernels.batch import masks
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.program import batch, dense, elementwise, sparse
from sparity_edge.kernels.program.recorder import Recorder
from sparity_edge.kernels.sparse.ffn import Bundle
from sparity_edge.kernels.sparse_vector import Selector, SparseVector


def sparsify_decoding(
    recorder: Recorder, x: Floats, selector: Selector, exponents: Floats | None
) -> SparseVector:
    """List the active channels of one token, or of each of several."""
    lists = empty_lists(*x.shape)
    with recorder.alongside():
        for token, active in enumerate(lists):
            exponent = None if exponents is None else exponents[token : token + 1]
            _select(recorder, x[token : token + 1], selector, exponent, active)
    active = lists[0] if len(lists) == 1 else lists
    counts = lists.view(np.int64)[:, 0]
    return SparseVector(x, selector.centre, counts, active=active, exact=selector.exact)


def _select(
    recorder: Recorder, x: Floats, selector: Selector, exponent: Floats | None, active: ActiveList
) -> None:
    centre = selector.centre
    if selector.kept is not None and selector.neighbours is not None:
        numbers = (int(selector.kept[0]), selector.neighbours)
        sparse.select_n_of_m(recorder, x, *numbers, active, selector.weights, centre)
    elif selector.kept is not None:
        sparse.select_top(recorder, x, selector.kept, active, selector.weights, centre)
    else:
        assert selector.thresholds is not None
        factors = (selector.coefficients, exponent)
        sparse.select_threshold(recorder, x, selector.thresholds, active, centre, *factors)


def sparsify_many(
    recorder: Recorder,
    x: Floats,
    selector: Selector,
    exponents: Floats | None,
) -> SparseVector:
    """Zeros in place of what each token of a prompt skips."""
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
    return SparseVector(x, selector.centre, counts, values=values)


def tally(recorder: Recorder, vectors: Sequence[SparseVector], out: Integers) -> None:
    """out[i] = sum of the counts of vectors[i]."""
    lists = recorder.pointing([each.counts for each in vectors])
    tokens = len(vectors[0].counts) if vectors else 0
    strides = np.array([each.counts.strides[0] for each in vectors], dtype=np.int64)
    words: dict[str, Any] = {"lists": lists, "strides": strides, "size": len(lists)}
    recorder.record(masks.tally, 1, **words, tokens=tokens, tallies=out)


def linear(
    recorder: Recorder,
    x: SparseVector,
    matrix: Matrix,
    out: Floats,
    bias: Floats | None,
    accumulate: bool,
) -> None:
    """out = x W^T (+ bias) (+ out) over active channels of x, less their centre."""
    if x.active is None:
        assert x.values is not None
        dense.gemm(recorder, x.values, matrix, out, bias, accumulate)
        return
    values = _less_centre(recorder, x)
    if len(values) == 1:
        sparse.spvmm(recorder, values, matrix, x.active, [out], [bias], accumulate)
    else:
        batch.spvmm_each(recorder, values, matrix, x.active, out, bias, accumulate)


def _less_centre(recorder: Recorder, x: SparseVector) -> Floats:
    """x - centre."""
    if x.centre is None:
        return x.x
    tokens, size = x.x.shape
    values = rows(tokens, size)
    recorder.record(
        masks.subtract, tokens, x=x.x, x_stride=x.x.strides[0], centre=x.centre, size=size,
        out=values, out_stride=values.strides[0], writes=values,
    )  # fmt: skip
    recorder.barrier()  # the product waits for the difference
    return values


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
    values, active, centre, exact = _gate_of(gate)
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
    values, active, centre, exact = _gate_of(gate)
    batch.ffn_each(
        recorder, x, values, bundle, active, out, centre, accumulate=accumulate, relu_up=relu_up,
        by_channel=exact,
    )  # fmt: skip


def _gate_of(gate: Floats | SparseVector) -> tuple[Floats, ActiveList, Floats | None, bool]:
    """Values of the gates, which neurons count, the centre, and whether all others are zero."""
    if isinstance(gate, SparseVector):
        assert gate.active is not None
        return gate.x, gate.active, gate.centre, gate.exact
    return gate, sparse.every_channel(gate.shape[1]), None, False


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
