"""Arithmetic on logits: log normaliser, log-likelihoods, KL divergence.

All of it in float64 and a few rows at a time, so that a large vocabulary costs no memory. Knows
neither models nor texts: logits are arrays (tokens, vocab_size) float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sparity_edge.arrays import Doubles, Floats

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
