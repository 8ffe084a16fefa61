"""Arithmetic on logits: log normaliser, log-likelihoods, the largest of them, KL divergence.

All of it in float64 and a few rows at a time, so that a large vocabulary costs no memory. Knows
neither models nor texts: logits are arrays (tokens, vocab_size) float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sparity_edge.arrays import Doubles, Floats

Ids = npt.NDArray[np.intp]

PART_LOGITS = 1 << 18  # treated at once: 2 MB in float64, what a core's cache holds


def target_logits(logits: Floats, targets: Sequence[int]) -> Doubles:
    """The logit (tokens,) of one target in each row of (tokens, vocab_size)."""
    return logits[np.arange(len(targets)), targets].astype(np.float64)


def log_normaliser(logits: Floats) -> Doubles:
    """log of the sum of exp of each row, (tokens,); a logit less it is a log-likelihood in nats."""
    result = np.empty(len(logits), dtype=np.float64)
    for part in parts(*logits.shape):
        rows = logits[part].astype(np.float64)
        top = rows.max(axis=1)
        rows -= top[:, None]
        result[part] = top + np.log(np.exp(rows, out=rows).sum(axis=1))
    return result


def parts(count: int, width: int) -> Iterator[slice]:
    """Cut `count` rows of `width` numbers into parts that fit a core's cache."""
    rows = max(1, PART_LOGITS // width)
    for start in range(0, count, rows):
        yield slice(start, min(count, start + rows))


def kl_divergence(
    expected: Floats, expected_normaliser: Doubles, other: Floats, other_normaliser: Doubles
) -> Doubles:
    """KL(softmax(expected) || softmax(other)) of each row, in nats, (tokens,).

    Args:
        expected, other: logits (tokens, vocab_size).
        expected_normaliser, other_normaliser: their `log_normaliser`, (tokens,).
    """
    result = other_normaliser - expected_normaliser
    for part in parts(*expected.shape):
        difference = expected[part].astype(np.float64)
        p = np.exp(difference - expected_normaliser[part, None])
        difference -= other[part]
        # sum p (log p - log q) with the normalisers taken out of the sum, for p adds up to 1
        result[part] += np.einsum("ij,ij->i", p, difference)
    return np.maximum(result, 0)  # rounding must not make a distance negative


def highest(x: npt.NDArray[np.floating[Any]], k: int) -> Ids:
    """Positions of the `k` largest values in ascending order; of equal values the first ones.

    Args:
        x: (n,) without NaN.
        k: 1 to n.
    """
    kth = np.partition(x, x.size - k)[x.size - k]
    above = np.flatnonzero(x > kth)
    equal = np.flatnonzero(x == kth)[: k - above.size]
    ids = np.concatenate((above, equal))
    ids.sort()
    return ids


def top_logprobs(logits: npt.NDArray[Any], count: int) -> dict[int, float]:
    """The most likely tokens with their log-probabilities, the best first.

    Args:
        logits: (vocab_size,) float32, as the model gives them: before bias, penalties and filters.
        count: how many; all of them where there are fewer.
    """
    if not count:
        return {}
    ids = highest(logits, min(count, logits.size))
    x = logits[ids].astype(np.float64) - log_normaliser(logits[None])[0]
    return {int(ids[at]): float(x[at]) for at in np.argsort(-x, kind="stable")}


def logprob_of(x: Floats, token: int) -> float:
    """The natural log-probability of a token under the softmax of logits (vocab_size,)."""
    peak = x.max()
    log_total = np.log(np.exp(x - peak).sum(dtype=np.float64)) + float(peak)
    return float(x[token] - log_total)
