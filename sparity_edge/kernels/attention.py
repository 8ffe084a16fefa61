"""Attention of queries over the cached keys and values, in blocks of 256 positions.

Every block gives a partial result (largest score, sum of weights, weighted values) and partial
results are merged in order of position (online softmax). While decoding, the blocks of one head are
chunks of their own, so that a long context keeps all threads busy; for a prompt there are enough
queries for that. Blocks never depend on the number of threads.
"""

from __future__ import annotations

import math

from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.simd import (
    add,
    exp,
    fma,
    largest,
    load,
    load_f32,
    load_i64,
    maximum,
    mul,
    splat,
    store,
    store_f32,
    sub,
    total,
)

BLOCK = 256  # positions

# POSITION is the address of the first query's position, WINDOW the positions a query sees (0: all).
# The cache is (key-value head, position, head_dim); PARTS is (head, block, PART floats).
(
    Q,
    Q_STRIDE,
    KEYS,
    VALUES,
    HEAD_STRIDE,
    POSITION,
    WINDOW,
    HEADS,
    SHARE,
    HEAD_DIM,
    OUT,
    OUT_STRIDE,
) = (8 * word for word in range(12))
BLOCKS, PARTS, PART_BYTES, SCALE = (8 * word for word in range(12, 16))
# A partial result: weighted values (head_dim, filled up to 16), then two numbers.
_LARGEST, _WEIGHT, _TAIL = 0, 4, 64


@device
def _dot(a: int, b: int, size: int) -> float:
    sums = splat(0.0)
    whole = size - size % 16
    for i in range(0, 4 * whole, 64):
        sums = fma(load(a + i), load(b + i), sums)
    result = total(sums)
    for i in range(whole, size):
        result += load_f32(a + 4 * i) * load_f32(b + 4 * i)
    return result


@device
def _add_scaled(scale: float, x: int, sums: int, size: int) -> None:
    whole = size - size % 16
    for i in range(0, 4 * whole, 64):
        store(sums + i, fma(splat(scale), load(x + i), load(sums + i)))
    for i in range(whole, size):
        store_f32(sums + 4 * i, load_f32(sums + 4 * i) + scale * load_f32(x + 4 * i))


@device
def _padded(size: int) -> int:
    return (size + 15) // 16 * 16


@device
def _attend(
    arguments: int, query: int, head: int, first: int, last: int, part: int, scores: int
) -> None:
    """The partial result of one query over positions first..last-1, at most BLOCK of them."""
    head_dim = load_i64(arguments + HEAD_DIM)
    offset = head // load_i64(arguments + SHARE) * load_i64(arguments + HEAD_STRIDE)
    keys = load_i64(arguments + KEYS) + offset + 4 * head_dim * first
    values = load_i64(arguments + VALUES) + offset + 4 * head_dim * first
    count, scale = last - first, load_f32(arguments + SCALE)
    for i in range(count):
        store_f32(scores + 4 * i, scale * _dot(query, keys + 4 * head_dim * i, head_dim))
    for i in range(count, _padded(count)):
        store_f32(scores + 4 * i, -math.inf)
    peak = splat(-math.inf)
    for i in range(0, 4 * count, 64):
        peak = maximum(peak, load(scores + i))
    top = largest(peak)
    weights = splat(0.0)
    for i in range(0, 4 * count, 64):
        weight = exp(sub(load(scores + i), splat(top)))
        store(scores + i, weight)
        weights = add(weights, weight)
    tail = 4 * _padded(head_dim)
    for i in range(0, tail, 64):
        store(part + i, splat(0.0))
    store_f32(part + tail + _LARGEST, top)
    store_f32(part + tail + _WEIGHT, total(weights))
    for i in range(count):
        _add_scaled(load_f32(scores + 4 * i), values + 4 * head_dim * i, part, head_dim)


@device
def _merge(sums: int, part: int, head_dim: int) -> None:
    """Add a later partial result to an earlier one."""
    tail = 4 * _padded(head_dim)
    mine, other = load_f32(sums + tail + _LARGEST), load_f32(part + tail + _LARGEST)
    top = max(mine, other)
    keep, take = math.exp(mine - top), math.exp(other - top)
    for i in range(0, tail, 64):
        store(sums + i, fma(splat(take), load(part + i), mul(splat(keep), load(sums + i))))
    weight = keep * load_f32(sums + tail + _WEIGHT) + take * load_f32(part + tail + _WEIGHT)
    store_f32(sums + tail + _WEIGHT, weight)
    store_f32(sums + tail + _LARGEST, top)


@device
def _finish(arguments: int, sums: int, token: int, head: int) -> None:
    head_dim = load_i64(arguments + HEAD_DIM)
    out = load_i64(arguments + OUT) + token * load_i64(arguments + OUT_STRIDE)
    scale = 1.0 / load_f32(sums + 4 * _padded(head_dim) + _WEIGHT)
    for i in range(head_dim):
        store_f32(out + 4 * (head_dim * head + i), scale * load_f32(sums + 4 * i))


@device
def _first_position(arguments: int, position: int) -> int:
    window = load_i64(arguments + WINDOW)
    return max(0, position + 1 - window) if window > 0 else 0


@Kernel
def attention_prefill(arguments: int, chunk: int, scratch: int) -> None:
    """One head of one query; chunks go query by query."""
    heads, head_dim = load_i64(arguments + HEADS), load_i64(arguments + HEAD_DIM)
    token, head = chunk // heads, chunk % heads
    position = load_i64(load_i64(arguments + POSITION)) + token
    query = load_i64(arguments + Q) + token * load_i64(arguments + Q_STRIDE) + 4 * head_dim * head
    size = 4 * _padded(head_dim) + _TAIL
    sums, part, scores = scratch, scratch + size, scratch + 2 * size
    first = _first_position(arguments, position)
    _attend(arguments, query, head, first, min(first + BLOCK, position + 1), sums, scores)
    for start in range(first + BLOCK, position + 1, BLOCK):
        _attend(arguments, query, head, start, min(start + BLOCK, position + 1), part, scores)
        _merge(sums, part, head_dim)
    _finish(arguments, sums, token, head)


@Kernel
def attention_decode(arguments: int, chunk: int, scratch: int) -> None:
    """One block of one head of the only query, to PARTS; blocks not in sight are left alone."""
    blocks, head_dim = load_i64(arguments + BLOCKS), load_i64(arguments + HEAD_DIM)
    head, block = chunk // blocks, chunk % blocks
    position = load_i64(load_i64(arguments + POSITION))
    first = _first_position(arguments, position) + block * BLOCK
    if first <= position:
        query = load_i64(arguments + Q) + 4 * head_dim * head
        part = load_i64(arguments + PARTS) + chunk * load_i64(arguments + PART_BYTES)
        _attend(arguments, query, head, first, min(first + BLOCK, position + 1), part, scratch)


@Kernel
def attention_combine(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Merge the blocks of head `chunk` that `attention_decode` left in PARTS."""
    blocks, part_bytes = load_i64(arguments + BLOCKS), load_i64(arguments + PART_BYTES)
    position = load_i64(load_i64(arguments + POSITION))
    first = _first_position(arguments, position)
    sums = load_i64(arguments + PARTS) + chunk * blocks * part_bytes
    for block in range(1, (position - first) // BLOCK + 1):
        _merge(sums, sums + block * part_bytes, load_i64(arguments + HEAD_DIM))
    _finish(arguments, sums, 0, chunk)
