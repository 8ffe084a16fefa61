"""The NumPy twins of the products over active channels.

`vmmsp`, `spvmm` and `ffn` take one token and an active list; `neurons` takes several tokens and a
gate with zeros in place of what is skipped. Matrices are (outputs, inputs) float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparity_edge.arrays import Floats, Integers
from sparity_edge.kernels.active_list import ActiveList, channels
from sparity_edge.kernels.reference.dense import linear, relu
from sparity_edge.kernels.sparse_vector import SparseVector

UpDown = tuple[Floats, Floats]  # (neurons, hidden), (hidden, neurons)


def vmmsp(
    x: Floats,
    matrix: Floats,
    active: ActiveList,
    out: Floats,
    bias: Floats | None = None,
) -> None:
    """Active outputs of x W^T (+ bias); the others stay as they are."""
    wanted = channels(active)
    result = x @ matrix[wanted].T
    out[:, wanted] = result if bias is None else result + bias[wanted]


def spvmm(
    x: Floats,
    matrix: Floats,
    active: ActiveList,
    outs: Sequence[Floats],
    biases: Sequence[Floats | None] | None = None,
    accumulate: bool = False,
) -> None:
    """x W^T over active inputs (+ bias) (+ outs), W stacked of as many matrices as `outs`."""
    wanted = channels(active)
    result = x[:, wanted] @ matrix[:, wanted].T
    start = 0
    for out, bias in zip(outs, biases or [None] * len(outs), strict=True):
        part = result[:, start : start + out.shape[1]]
        part = part if bias is None else part + bias
        out[:] = out + part if accumulate else part
        start += out.shape[1]


def ffn(
    x: Floats,
    gate: Floats,
    bundle: UpDown,
    active: ActiveList,
    out: Floats,
    centre: Floats | None = None,
    accumulate: bool = False,
) -> None:
    """Sum over active i of (gate_i - centre_i) (up_i . x) down_i (+ out)."""
    wanted, (up, down) = channels(active), bundle
    factors = gate[:, wanted] if centre is None else gate[:, wanted] - centre[wanted]
    result = (factors * (x @ up[wanted].T)) @ down[:, wanted].T
    out[:] = out + result if accumulate else result


def neurons(
    x: Floats,
    gate: Floats | SparseVector,
    bundle: UpDown,
    up: Floats,
    middle: Floats,
    out: Floats,
    relu_up: bool = False,
    accumulate: bool = True,
) -> None:
    """out = (gate * (x W_up^T)) W_down^T (+ out); up and middle (tokens, neurons) are memory."""
    values = gate if isinstance(gate, np.ndarray) else gate.values
    assert values is not None
    linear(x, bundle[0], up)
    if relu_up:
        relu(up, 0.0, up)
    middle[:] = values * up
    linear(middle, bundle[1], out, accumulate=accumulate)


def tally(vectors: Sequence[SparseVector], out: Integers) -> None:
    """out[i] = sum of the counts of vectors[i]."""
    for index, each in enumerate(vectors):
        out[index] = each.counts.sum()
