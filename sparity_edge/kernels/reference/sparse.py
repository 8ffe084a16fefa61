"""The NumPy twins of the operations over active channels; see `program_sparse`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import Floats, Integers
from sparity_edge.kernels.active_list import ActiveList, channels, set_channels
from sparity_edge.kernels.sparse_vector import FLOOR, LARGEST_EXPONENT, LARGEST_FACTOR

UpDown = tuple[Floats, Floats]  # (neurons, hidden), (hidden, neurons)


class SparseReference:
    """What `Reference` adds for active lists."""

    def select_threshold(
        self,
        x: Floats,
        thresholds: Floats,
        out: ActiveList,
        centre: Floats | None = None,
        coefficients: Floats | None = None,
        exponent: Floats | None = None,
    ) -> None:
        """Channels with |x - centre| > threshold (x the factors), or NaN."""
        value = x if centre is None else x - centre
        if coefficients is not None:
            thresholds = thresholds * factors(value, coefficients)[0]
        if exponent is not None:
            thresholds = thresholds * factors_of_gain(exponent)[0]
        set_channels(out, np.flatnonzero(~(np.abs(value[0]) <= thresholds)))

    def select_top(
        self,
        x: Floats,
        count: Integers,
        out: ActiveList,
        weights: Floats | None = None,
        centre: Floats | None = None,
    ) -> None:
        """The `count` channels of largest |x - centre| * weight."""
        bits = _magnitudes(x[0], weights, centre)
        order = np.argsort(-bits, kind="stable")
        set_channels(out, np.sort(order[: max(0, int(count[0]))]))

    def select_n_of_m(
        self, x: Floats, n: int, m: int, out: ActiveList, weights: Floats | None = None
    ) -> None:
        """The n channels of largest |x| * weight in each m neighbours."""
        bits = _magnitudes(x[0], weights, None)
        groups = np.arange(len(bits)) // m
        order = np.lexsort((-bits, groups))  # by group, then by size, then by number
        ranks = np.arange(len(bits)) - groups[order] * m
        set_channels(out, np.sort(order[ranks < n]))

    def vmmsp(
        self,
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
        self,
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
        self,
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


def features(x: Floats) -> Floats:
    """What a factor depends on: log mean |x|, log (rms / mean), log (max / mean), (tokens, 3)."""
    sizes = np.abs(x)
    with np.errstate(over="ignore", invalid="ignore"):
        rms = np.sqrt(np.einsum("tc,tc->t", x, x) / x.shape[1])
        sums = np.stack([sizes.mean(axis=1), rms, sizes.max(axis=1)], axis=1)
        found: Floats = np.log(np.maximum(sums, FLOOR))
        found[:, 1:] -= found[:, :1]
    return found


def factors(x: Floats, coefficients: Floats) -> Floats:
    """The factor on the thresholds of each row of x (tokens, size); see scale.py, (tokens, 1)."""
    limit = np.log(np.float32(LARGEST_FACTOR))
    with np.errstate(over="ignore", invalid="ignore"):
        logarithms = coefficients[0] + features(x) @ coefficients[1:]
        result: Floats = np.exp(np.clip(logarithms, -limit, limit)).astype(np.float32)
    return result[:, None]


def factors_of_gain(exponents: Floats) -> Floats:
    """The factor on the thresholds of each token that its exponent (tokens, 1) gives, the same."""
    return np.exp(-np.clip(exponents, -LARGEST_EXPONENT, LARGEST_EXPONENT))


def _magnitudes(x: Floats, weights: Floats | None, centre: Floats | None) -> npt.NDArray[np.int64]:
    """Integers ordered as |x - centre| * weight is, NaN the largest."""
    value = x if centre is None else x - centre
    value = value if weights is None else value * weights
    bits = np.ascontiguousarray(value, dtype=np.float32).view(np.int32)
    return (bits & 0x7FFFFFFF).astype(np.int64)
