"""The NumPy twins of the operations that read every channel.

Arrays of activations are (tokens, size) float32; matrices are (outputs, inputs) float32, however
they were packed. Each function writes its result into `out`, as `operations` says.
"""

from __future__ import annotations

import numpy as np

from sparity_edge.arrays import Floats, Integers, Numbers
from sparity_edge.kernels.kv_format import floats, head_dim_of, write
from sparity_edge.kernels.operations import HeadNorm
from sparity_edge.kernels.sparse_vector import SparseVector


def embed(ids: Integers, table: Floats, out: Floats) -> None:
    """Rows `ids` (tokens,) of the table (vocabulary, size)."""
    out[:] = table[ids]


def rmsnorm(
    x: Floats, weight: Floats, epsilon: float, out: Floats, accumulate: bool = False
) -> None:
    """x / sqrt(mean(x**2) + epsilon) * weight (+ out) for every row; weight is (size,)."""
    mean = np.mean(x * x, axis=1, keepdims=True, dtype=np.float32)
    result = x / np.sqrt(mean + np.float32(epsilon)) * weight
    out[:] = out + result if accumulate else result


def linear(
    x: Floats | SparseVector,
    matrix: Floats,
    out: Floats,
    bias: Floats | None = None,
    accumulate: bool = False,
) -> None:
    """out = x W^T (+ bias (outputs,)) (+ out)."""
    values = x if isinstance(x, np.ndarray) else x.values
    assert values is not None
    result = values @ matrix.T
    if bias is not None:
        result += bias
    out[:] = out + result if accumulate else result


def rope(
    x: Floats,
    table: Floats,
    position: Integers,
    heads: int,
    out: Floats,
    norm: HeadNorm | None = None,
) -> None:
    """Rotate the heads of every row by its position; table is (positions, head_dim)."""
    tokens, size = x.shape
    split = _normed(x.reshape(tokens, heads, size // heads), norm)
    rotated = _rotate(split, table, int(position[0]))
    out[:] = rotated.reshape(tokens, size)


def append(
    keys: Floats,
    values: Floats,
    table: Floats,
    position: Integers,
    cached_keys: Numbers,
    cached_values: Numbers,
    norm: HeadNorm | None = None,
) -> None:
    """Write rotated keys and values into the rows of the KV cache (heads, capacity)."""
    heads, head_dim = len(cached_keys), head_dim_of(cached_keys)
    start, tokens = int(position[0]), len(keys)
    split = _normed(keys.reshape(tokens, heads, head_dim), norm)
    rotated = _rotate(split, table, start)
    write(cached_keys[:, start : start + tokens], rotated.swapaxes(0, 1))
    plain = values.reshape(tokens, heads, head_dim)
    write(cached_values[:, start : start + tokens], plain.swapaxes(0, 1))


def attention(
    q: Floats,
    cached_keys: Numbers,
    cached_values: Numbers,
    position: Integers,
    window: int | None,
    out: Floats,
) -> None:
    """Softmax(q K^T / sqrt(head_dim)) V over the positions each row of q may see."""
    tokens, size = q.shape
    kv_heads, head_dim = len(cached_keys), head_dim_of(cached_keys)
    share = size // head_dim // kv_heads
    end = int(position[0]) + tokens
    queries = q.reshape(tokens, kv_heads, share, head_dim)
    scores = np.einsum("tgsd,gpd->gstp", queries, floats(cached_keys[:, :end]))
    scores *= np.float32(head_dim**-0.5)
    at = np.arange(end - tokens, end)[:, None]
    seen = np.arange(end)[None, :] <= at
    if window is not None:
        seen &= np.arange(end)[None, :] > at - window
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = np.einsum("gstp,gpd->tgsd", weights, floats(cached_values[:, :end]))
    out[:] = mixed.reshape(tokens, size)


def silu(x: Floats, out: Floats) -> None:
    """x / (1 + exp(-x))."""
    with np.errstate(over="ignore"):  # exp(-x) may be inf, which gives the right 0
        out[:] = x / (1 + np.exp(-x))


def relu(x: Floats, threshold: float, out: Floats) -> None:
    """x where it is above the threshold, else 0; NaN stays."""
    out[:] = np.where(x <= threshold, np.float32(0), x)


def scale(x: Floats, factor: float, out: Floats) -> None:
    """x * factor."""
    out[:] = x * np.float32(factor)


def multiply(x: Floats, y: Floats, out: Floats) -> None:
    """x * y."""
    out[:] = x * y


def silu_mul(gate: Floats, up: Floats, out: Floats) -> None:
    """silu(gate) * up."""
    with np.errstate(over="ignore"):
        out[:] = gate / (1 + np.exp(-gate)) * up


def _normed(heads: Floats, norm: HeadNorm | None) -> Floats:
    """(tokens, heads, head_dim), each head through RMSNorm."""
    if norm is None:
        return heads
    out: Floats = np.empty(heads.shape, dtype=np.float32)
    rmsnorm(heads.reshape(-1, heads.shape[2]), *norm, out.reshape(-1, heads.shape[2]))
    return out


def _rotate(heads: Floats, table: Floats, start: int) -> Floats:
    """Rotate (tokens, heads, head_dim) pairs (i, i + head_dim / 2) by position."""
    half = heads.shape[-1] // 2
    rows = table[start : start + len(heads), None, :]
    cosine, sine = rows[..., :half], rows[..., half:]
    a, b = heads[..., :half], heads[..., half:]
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)
