"""Attention of one query over the cached keys and values, in blocks of 256 positions.

Every block gives a partial result (largest score, sum of weights, weighted values) and partial
results are merged in order of position (online softmax). A block of one key-value head is a chunk
of its own, so that a long context keeps all threads busy; heads that share its keys follow each
other. Blocks never depend on the number of threads. Prompts are `attention_prefill`'s.
"""

from __future__ import annotations

import math
from typing import Any

from sparity_edge.kernels.elementwise import rotate, store_heads
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.simd import (
    add,
    exp,
    fma,
    largest,
    load,
    load_bf16,
    load_bf16_alone,
    load_f32,
    load_i64,
    load_splat,
    maximum,
    mul,
    prefetch,
    splat,
    store,
    store_f32,
    sub,
    tile4x1_step,
    tile4x1_step_bf16,
    tile4x1_totals,
    tile4x1_zero,
    total,
)

BLOCK = 256  # positions
SCORES_BYTES = 4 * BLOCK + 64  # written 64 bytes at a time, of which 16 are valid
AHEAD = 4096  # bytes from a key or value to the one that is asked for

# POSITION is the address of the query's position, WINDOW the positions it sees (0: all). The cache
# is (key-value head, position, head_dim) of bfloat16 where it is NARROW, else of float32; PARTS is
# (head, block, PART_BYTES).
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
BLOCKS, PARTS, PART_BYTES, SCALE, NARROW = (8 * word for word in range(12, 17))
# Where TABLE is not 0, queries and the token's own keys are not rotated yet, and its NEW_KEYS and
# NEW_VALUES not in the cache: whoever has them in its block puts them there.
TABLE, NEW_KEYS, NEW_VALUES = (8 * word for word in range(17, 20))
# A partial result: weighted values (head_dim, filled up to 16), then two numbers.
_LARGEST, _WEIGHT, _TAIL = 0, 4, 64


@device
def load_number(address: int, narrow: int) -> float:
    """A number of the cache: bfloat16 where it is narrow, else float32."""
    return load_bf16_alone(address) if narrow != 0 else load_f32(address)


@device
def load_numbers(address: int, narrow: int) -> Any:
    """Sixteen numbers of the cache."""
    return load_bf16(address) if narrow != 0 else load(address)


@device
def _write_scores(
    arguments: int, query: int, keys: int, count: int, narrow: int, scores: int
) -> None:
    """Scaled query . key for `count` keys; four at a time, whose sums are taken together.

    Keys come from memory in order, and are asked for before the loop comes to them.
    """
    head_dim, scale = load_i64(arguments + HEAD_DIM), load_f32(arguments + SCALE)
    number, whole = 2 if narrow != 0 else 4, 0
    stride = number * head_dim
    if head_dim % 16 == 0:
        whole = count - count % 4
    for key in range(0, whole, 4):
        rows = keys + key * stride
        for line in range(0, 4 * stride, 64):
            prefetch(rows + line + AHEAD)
        sums = tile4x1_zero()
        for i in range(0, head_dim, 16):
            if narrow != 0:
                sums = tile4x1_step_bf16(sums, rows + 2 * i, stride, query + 4 * i)
            else:
                sums = tile4x1_step(sums, rows + 4 * i, stride, query + 4 * i, 0)
        # Writes 64 bytes, of which the next keys overwrite all but the first 16.
        tile4x1_totals(sums, scores + 4 * key)
    for i in range(0, 4 * whole, 64):
        store(scores + i, mul(splat(scale), load(scores + i)))
    for key in range(whole, count):
        score = 0.0
        for i in range(head_dim):
            place = keys + key * stride + number * i
            score += load_f32(query + 4 * i) * load_number(place, narrow)
        store_f32(scores + 4 * key, scale * score)


@device
def _sum_values(
    weights: int, values: int, count: int, head_dim: int, narrow: int, out: int
) -> None:
    """The sum of `count` rows of values, each times its weight; four vectors of a row at a time."""
    number = 2 if narrow != 0 else 4
    stride, wide = number * head_dim, head_dim - head_dim % 64
    for start in range(0, wide, 64):
        a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        row = values + number * start
        for i in range(count):
            weight = load_splat(weights + 4 * i)
            a = fma(weight, load_numbers(row, narrow), a)
            b = fma(weight, load_numbers(row + 16 * number, narrow), b)
            c = fma(weight, load_numbers(row + 32 * number, narrow), c)
            d = fma(weight, load_numbers(row + 48 * number, narrow), d)
            for line in range(0, 64 * number, 64):
                prefetch(row + line + AHEAD)
            row += stride
        store(out + 4 * start, a)
        store(out + 4 * start + 64, b)
        store(out + 4 * start + 128, c)
        store(out + 4 * start + 192, d)
    vectors = head_dim - head_dim % 16
    for start in range(wide, vectors, 16):
        e = splat(0.0)
        for i in range(count):
            value = load_numbers(values + i * stride + number * start, narrow)
            e = fma(load_splat(weights + 4 * i), value, e)
        store(out + 4 * start, e)
    for lane in range(vectors, head_dim):
        value = 0.0
        for i in range(count):
            place = values + i * stride + number * lane
            value += load_f32(weights + 4 * i) * load_number(place, narrow)
        store_f32(out + 4 * lane, value)


@device
def _padded(size: int) -> int:
    return (size + 15) // 16 * 16


@device
def _attend(
    arguments: int, query: int, head: int, first: int, last: int, part: int, scores: int
) -> None:
    """The partial result of one query over positions first..last-1, at most BLOCK of them."""
    head_dim, narrow = load_i64(arguments + HEAD_DIM), load_i64(arguments + NARROW)
    offset = head // load_i64(arguments + SHARE) * load_i64(arguments + HEAD_STRIDE)
    offset += (2 if narrow != 0 else 4) * head_dim * first
    keys, values = load_i64(arguments + KEYS) + offset, load_i64(arguments + VALUES) + offset
    count = last - first
    _write_scores(arguments, query, keys, count, narrow, scores)
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
    _sum_values(scores, values, count, head_dim, narrow, part)
    tail = 4 * _padded(head_dim)
    store_f32(part + tail + _LARGEST, top)
    store_f32(part + tail + _WEIGHT, total(weights))


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


@device
def _append(arguments: int, kv_head: int, position: int, table: int, scratch: int) -> None:
    """Rotated keys and plain values of one head into the cache."""
    head_dim, narrow = load_i64(arguments + HEAD_DIM), load_i64(arguments + NARROW)
    new = 4 * head_dim * kv_head
    place = kv_head * load_i64(arguments + HEAD_STRIDE)
    place += (2 if narrow != 0 else 4) * head_dim * position
    rotate(load_i64(arguments + NEW_KEYS) + new, table, scratch, head_dim)
    store_heads(scratch, head_dim, narrow, load_i64(arguments + KEYS) + place)
    values = load_i64(arguments + NEW_VALUES) + new
    store_heads(values, head_dim, narrow, load_i64(arguments + VALUES) + place)


@Kernel
def attention_decode(arguments: int, chunk: int, scratch: int) -> None:
    """One block of one key-value head for all its queries, to PARTS.

    Chunks go head by head. Blocks that are not in sight are left alone.
    """
    blocks, head_dim = load_i64(arguments + BLOCKS), load_i64(arguments + HEAD_DIM)
    kv_head, block = chunk // blocks, chunk % blocks
    position = load_i64(load_i64(arguments + POSITION))
    first = _first_position(arguments, position) + block * BLOCK
    if first > position:
        return
    last = min(first + BLOCK, position + 1)
    share, part_bytes = load_i64(arguments + SHARE), load_i64(arguments + PART_BYTES)
    table, rotated = load_i64(arguments + TABLE), scratch + SCORES_BYTES
    if table != 0:
        table += 4 * head_dim * position
        if last > position:
            _append(arguments, kv_head, position, table, rotated)
    for head in range(kv_head * share, (kv_head + 1) * share):
        query = load_i64(arguments + Q) + 4 * head_dim * head
        if table != 0:
            rotate(query, table, rotated, head_dim)
            query = rotated
        part = load_i64(arguments + PARTS) + (head * blocks + block) * part_bytes
        _attend(arguments, query, head, first, last, part, scratch)


@device
def combine_head(arguments: int, head: int) -> None:
    """Merge the blocks of one head that `attention_decode` left in PARTS."""
    blocks, part_bytes = load_i64(arguments + BLOCKS), load_i64(arguments + PART_BYTES)
    position = load_i64(load_i64(arguments + POSITION))
    first = _first_position(arguments, position)
    sums = load_i64(arguments + PARTS) + head * blocks * part_bytes
    for block in range(1, (position - first) // BLOCK + 1):
        _merge(sums, sums + block * part_bytes, load_i64(arguments + HEAD_DIM))
    _finish(arguments, sums, 0, head)


@Kernel
def attention_combine(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """`combine_head` of head `chunk`."""
    combine_head(arguments, chunk)
