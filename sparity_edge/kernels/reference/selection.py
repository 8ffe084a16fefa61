"""The NumPy twins of what decides which channels are active, and of the factors on thresholds.

`select_...` take one token and write an active list; `sparsify` takes several and gives a sparse
vector. All compare by magnitude, and NaN is larger than anything. `features` and `factors` are what
calibration fits, too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import Floats, Integers
from sparity_edge.kernels.active_list import ActiveList, set_channels
from sparity_edge.kernels.sparse_vector import (
    FLOOR,
    LARGEST_EXPONENT,
    LARGEST_FACTOR,
    Selector,
    SparseVector,
)


def select_threshold(
    x: Floats,
    thresholds: Floats,
    out: ActiveList,
    centre: Floats | None = None,
    coefficients: Floats | None = None,
    exponent: Floats | None = None,
) -> None:
    """Channels with |x - centre| > threshold (times the factors), or NaN.

    Args:
        x: (1, size).
        thresholds: (size,).
        out: the active list.
        centre: (size,).
        coefficients: (4,), of the threshold factor.
        exponent: (1, 1), of a gain.
    """
    value = x if centre is None else x - centre
    if coefficients is not None:
        thresholds = thresholds * factors(value, coefficients)[0]
    if exponent is not None:
        thresholds = thresholds * factors_of_gain(exponent)[0]
    set_channels(out, np.flatnonzero(~(np.abs(value[0]) <= thresholds)))


def select_top(
    x: Floats,
    count: Integers,
    out: ActiveList,
    weights: Floats | None = None,
    centre: Floats | None = None,
) -> None:
    """The `count` (1,) channels of largest |x - centre| * weight; x is (1, size)."""
    bits = _magnitudes(x[0], weights, centre)
    order = np.argsort(-bits, kind="stable")
    set_channels(out, np.sort(order[: max(0, int(count[0]))]))


def select_n_of_m(
    x: Floats,
    n: int,
    m: int,
    out: ActiveList,
    weights: Floats | None = None,
    centre: Floats | None = None,
) -> None:
    """The n channels of largest |x - centre| * weight in each m neighbours; x is (1, size)."""
    set_channels(out, np.flatnonzero(_largest_of_neighbours(_magnitudes(x, weights, centre), n, m)))


def sparsify(x: Floats, selector: Selector, exponents: Floats | None) -> SparseVector:
    """x - centre with zeros in place of what is skipped.

    Args:
        x: (tokens, size).
        selector: which channels are active.
        exponents: (tokens, 1), of a gain.
    """
    values = x.copy() if selector.centre is None else x - selector.centre
    dropped = _dropped(values, selector, exponents)
    values[dropped] = 0
    counts = np.count_nonzero(~dropped, axis=1).astype(np.int64)
    return SparseVector(x, selector.centre, counts, values=values)


def _dropped(values: Floats, selector: Selector, exponents: Floats | None) -> npt.NDArray[np.bool_]:
    """Which channels of each row are skipped, (tokens, size)."""
    if selector.kept is not None and selector.neighbours is not None:
        bits = _magnitudes(values, selector.weights, None)
        return ~_largest_of_neighbours(bits, int(selector.kept[0]), selector.neighbours)
    if selector.kept is not None:
        scores = np.abs(values if selector.weights is None else values * selector.weights)
        scores[np.isnan(scores)] = np.inf
        order = np.argsort(-scores, axis=1, kind="stable")
        dropped = np.ones(values.shape, dtype=bool)
        np.put_along_axis(dropped, order[:, : int(selector.kept[0])], values=False, axis=1)
        return dropped
    assert selector.thresholds is not None
    thresholds = selector.thresholds
    if selector.coefficients is not None:
        thresholds = thresholds * factors(values, selector.coefficients)
    if exponents is not None:
        thresholds = thresholds * factors_of_gain(exponents)
    result: npt.NDArray[np.bool_] = np.abs(values) <= thresholds
    return result


def features(x: Floats) -> Floats:
    """What a threshold factor depends on, for each row of x (tokens, size).

    Returns:
        log mean |x|, log (rms / mean), log (max / mean): (tokens, 3).
    """
    sizes = np.abs(x)
    with np.errstate(over="ignore", invalid="ignore"):
        rms = np.sqrt(np.einsum("tc,tc->t", x, x) / x.shape[1])
        sums = np.stack([sizes.mean(axis=1), rms, sizes.max(axis=1)], axis=1)
        found: Floats = np.log(np.maximum(sums, FLOOR))
        found[:, 1:] -= found[:, :1]
    return found


def factors(x: Floats, coefficients: Floats) -> Floats:
    """The factor on the thresholds of each row of x (see `decode.threshold_factor`).

    Args:
        x: (tokens, size).
        coefficients: (4,), of 1 and of the `features`.

    Returns:
        (tokens, 1), from 1 / LARGEST_FACTOR to LARGEST_FACTOR.
    """
    limit = np.log(np.float32(LARGEST_FACTOR))
    with np.errstate(over="ignore", invalid="ignore"):
        logarithms = coefficients[0] + features(x) @ coefficients[1:]
        result: Floats = np.exp(np.clip(logarithms, -limit, limit)).astype(np.float32)
    return result[:, None]


def factors_of_gain(exponents: Floats) -> Floats:
    """The factor on the thresholds of each token that its exponent gives, both (tokens, 1)."""
    return np.exp(-np.clip(exponents, -LARGEST_EXPONENT, LARGEST_EXPONENT))


def _magnitudes(x: Floats, weights: Floats | None, centre: Floats | None) -> npt.NDArray[np.int64]:
    """Integers ordered as |x - centre| * weight is, NaN the largest."""
    value = x if centre is None else x - centre
    value = value if weights is None else value * weights
    bits = np.ascontiguousarray(value, dtype=np.float32).view(np.int32)
    return (bits & 0x7FFFFFFF).astype(np.int64)


def _largest_of_neighbours(bits: npt.NDArray[np.int64], n: int, m: int) -> npt.NDArray[np.bool_]:
    """Where the n largest of each m neighbours of a row are, of equals the first."""
    tokens, size = bits.shape
    groups = np.full((tokens, -(-size // m) * m), -1)
    groups[:, :size] = bits
    order = np.argsort(-groups.reshape(tokens, -1, m), axis=2, kind="stable")
    found = np.zeros(order.shape, dtype=bool)
    np.put_along_axis(found, order[:, :, :n], values=True, axis=2)
    return found.reshape(tokens, -1)[:, :size]
