"""Records of products of several tokens that read each weight once.

They do for each token what `vmm`, `spvmm` and `ffn` do for one, in the same order, so that dense
results are the same bits in a batch as alone; from one token to the next the rows stay in cache.
Prompts go through `gemm` instead, which unpacks rows once for all tokens.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.arrays import Floats, round_up
from sparity_edge.kernels.active_list import ActiveList
from sparity_edge.kernels.batch import few, own_lists, products
from sparity_edge.kernels.kept.families import family_of
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.program import sparse
from sparity_edge.kernels.program.dense import dense_words, steps_of, stream_of
from sparity_edge.kernels.program.forms import digits_of_each
from sparity_edge.kernels.program.recorder import Recorder
from sparity_edge.kernels.sparse import ffn
from sparity_edge.packed.layout import Layout


def vmm_each(
    recorder: Recorder,
    x: Floats,
    matrix: Matrix,
    out: Floats,
    bias: Floats | None,
    accumulate: bool,
) -> None:
    """out = x W^T (+ bias) (+ out), all of W."""
    layout = matrix.layout
    if layout.orientation == "input":
        every = sparse.every_channel(layout.shape[1])
        spvmm_each(recorder, x, matrix, every, out, bias, accumulate)
        return
    digits = digits_of_each(recorder, x, layout)
    chunks, step = steps_of(layout)
    words = {"matrix": matrix, "x": x, "bias": bias, "out": out, "accumulate": accumulate}
    words |= {**dense_words(layout, step), **digits._asdict()}
    kernel = family_of(layout).each[layout.dtype]
    table = recorder.table(kernel, len(x), words)
    recorder.need_scratch(few.SCRATCH_BYTES)
    stream = stream_of(matrix, step)
    recorder.record(kernel, chunks, **table, writes=out, stream=stream)


def spvmm_each(
    recorder: Recorder,
    x: Floats,
    matrix: Matrix,
    active: ActiveList,
    out: Floats,
    bias: Floats | None,
    accumulate: bool,
) -> None:
    """out = x W^T (+ bias) (+ out) over active inputs of an input-major W, one list or one each."""
    places, scratch = sparse.shares_of(matrix.layout)
    share = _scratch_shares(recorder, scratch, len(x))
    parts = places["parts"]
    sums, stride = _sums_of_each(recorder, parts, matrix.layout, len(x))
    words = {"matrix": matrix, "x": x, "active": active, **places}
    words |= {"part_sums": sums, "part_bytes": stride}
    table = recorder.table(own_lists.spvmm_each, len(x), words)
    chunks = parts * places["panels"]
    recorder.record(own_lists.spvmm_each, chunks, **table, scratch_share=share)
    _add_parts_of_each(recorder, sums, stride, parts, out, bias, accumulate)


def ffn_each(
    recorder: Recorder,
    x: Floats,
    gate: Floats,
    bundle: ffn.Bundle,
    active: ActiveList,
    out: Floats,
    centre: Floats | None = None,
    accumulate: bool = True,
    relu_up: bool = False,
    by_channel: bool = False,
) -> None:
    """out = (out +) the sum over active i of (gate_i - centre_i) (up_i . x) down_i.

    Neurons are active by one list of all tokens or by one each.
    """
    layout = bundle.layout
    digits = digits_of_each(recorder, x, layout.up)
    parts = sparse.parts_of(layout.up, sparse.MOST_PARTS)
    kernel = products.ffn_each if active.ndim == 1 else own_lists.ffn_own
    share = _scratch_shares(recorder, own_lists.OWN_BYTES, len(x))
    sums, stride = _sums_of_each(recorder, parts, layout.down, len(x))
    words = {"x": x, **digits._asdict(), **sparse.ffn_words(bundle, gate, centre, active)}
    words |= {"relu_up": relu_up, "by_channel": by_channel}
    words |= {"parts": parts, "part_sums": sums, "part_bytes": stride}
    table = recorder.table(kernel, len(x), words)
    recorder.record(kernel, parts, **table, scratch_share=share)
    _add_parts_of_each(recorder, sums, stride, parts, out, None, accumulate)


def _scratch_shares(recorder: Recorder, nbytes: int, tokens: int) -> int:
    """Have scratch memory for every token; returns how far apart their shares are."""
    share = round_up(nbytes, 64) + 64
    recorder.need_scratch(tokens * share)
    return share


def _sums_of_each(recorder: Recorder, parts: int, layout: Layout, tokens: int) -> tuple[Any, int]:
    """Memory for the sums of parts, a row for every token, and how far apart parts are."""
    sums, stride = sparse.part_sums(recorder, parts, layout, tokens)
    return sums.reshape(tokens, -1), stride


def _add_parts_of_each(
    recorder: Recorder,
    sums: Any,
    stride: int,
    parts: int,
    out: Floats,
    bias: Floats | None,
    accumulate: bool,
) -> None:
    for token, own in enumerate(sums):
        rows = [out[token : token + 1]]
        sparse.add_parts(recorder, own, stride, parts, rows, [bias], accumulate)
