"""Attention of one query over the KV cache, in blocks of 256 positions.

Every block of positions gives a partial result (largest score, sum of weights, weighted values) and
partial results are merged in order of position (online softmax). A block of one key-value head is a
chunk of its own, so that a long context keeps all threads busy. Rows of float32 and bfloat16 are
read where they are, 64 at a time by all heads that share them; int8 becomes float32 in scratch
memory first. Blocks never depend on the number of threads. Prefill is `attention_prefill`'s.
"""

from __future__ import annotations

import math
from typing import Any

from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.decode.elementwise import append_head, turn_head
from sparity_edge.kernels.decode.kv_rows import AHEAD, beyond_cache, load_rows, row_bytes
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.simd.conversions import load_bf16
from sparity_edge.kernels.simd.dot_tiles import (
    tile4x1_step,
    tile4x1_step_bf16,
    tile4x1_totals,
    tile4x1_zero,
)
from sparity_edge.kernels.simd.memory import (
    load,
    load_f32,
    load_i64,
    load_splat,
    prefetch,
    store,
    store_f32,
)
from sparity_edge.kernels.simd.vectors import (
    add,
    exp,
    fma,
    largest,
    maximum,
    mul,
    splat,
    sub,
    total,
)
from sparity_edge.kernels.words import Words

BLOCK = 256  # positions
ROWS = 64  # that are float32 at a time: 16 to 32 KB, which L1 holds

# POSITION is the address of the query's position, WINDOW the positions it sees (0: all). The cache
# is (key-value head, position) rows of numbers of NUMBER bytes, PARTS (head, block, PART_BYTES).
ATTENTION = Words(
    "q q_stride keys values head_stride position window heads share head_dim out out_stride "
    "blocks parts part_bytes scale number"
)
# Where TABLE is not 0, queries and the token's own keys are to be normed and rotated, and NEW_KEYS
# and NEW_VALUES put into the cache by whoever has them in its block.
DECODE = ATTENTION.plus("table new_keys new_values q_norm k_norm epsilon")
# A partial result: weighted values (head_dim, filled up to 16), then two numbers.
_LARGEST, _WEIGHT = 0, 4
# Scores are written 64 bytes at a time, of which the last 16 may be all that is valid.
_SCORES = 4 * BLOCK + 64


def scratch_bytes(share: int, head_dim: int) -> int:
    """What a chunk needs when `share` heads share their keys."""
    padded = -(-head_dim // 16) * 16
    return share * (4 * padded + _SCORES) + ROWS * 4 * padded


@device
def _padded(size: int) -> int:
    return (size + 15) // 16 * 16


@device
def _load_queries(arguments: int, first: int, table: int, queries: int) -> None:
    """Scaled queries of the heads from `first` on, each padded with zeros to 16 numbers.

    They are normed and rotated first if there is a row of cosines and sines at `table`.
    """
    norm, epsilon = load_i64(arguments + DECODE.q_norm), load_f32(arguments + DECODE.epsilon)
    head_dim, scale = load_i64(arguments + DECODE.head_dim), load_f32(arguments + DECODE.scale)
    source = load_i64(arguments + ATTENTION.q) + 4 * head_dim * first
    for _ in range(load_i64(arguments + ATTENTION.share)):
        rotated = source
        if table != 0:
            turn_head(source, norm, epsilon, table, queries, head_dim)
            rotated = queries
        for i in range(head_dim):
            store_f32(queries + 4 * i, scale * load_f32(rotated + 4 * i))
        for i in range(head_dim, _padded(head_dim)):
            store_f32(queries + 4 * i, 0.0)
        source, queries = source + 4 * head_dim, queries + 4 * _padded(head_dim)


@device
def _step(sums: Any, keys: int, stride: int, number: int, query: int, i: int) -> Any:
    """Add sixteen products of each of four keys."""
    if number == 2:
        return tile4x1_step_bf16(sums, keys + 2 * i, stride, query + 4 * i)
    return tile4x1_step(sums, keys + 4 * i, stride, query + 4 * i)


@device
def _score(
    query: int, keys: int, stride: int, number: int, count: int, padded: int, out: int
) -> None:
    """query . key for `count` keys; four at a time, whose sums are taken together."""
    whole = count // 4 * 4
    for key in range(0, whole, 4):
        rows, sums = keys + key * stride, tile4x1_zero()
        for line in range(0, 4 * stride, 64):
            prefetch(rows + line + AHEAD)
        for i in range(0, padded, 16):
            sums = _step(sums, rows, stride, number, query, i)
        # Writes 64 bytes, of which the next keys overwrite all but the first 16.
        tile4x1_totals(sums, out + 4 * key)
    for key in range(whole, count):  # one key for all four: none may follow the last
        sums = tile4x1_zero()
        for i in range(0, padded, 16):
            sums = _step(sums, keys + key * stride, 0, number, query, i)
        tile4x1_totals(sums, out + 4 * key)


@device
def _weigh(scores: int, count: int, tail: int) -> None:
    """Turn scores into weights; the largest and the sum go to the tail of the partial result."""
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
    store_f32(tail + _LARGEST, top)
    store_f32(tail + _WEIGHT, total(weights))


@device
def _load_numbers(address: int, number: int) -> Any:
    return load_bf16(address) if number == 2 else load(address)


@device
def _add_values(
    weights: int, values: int, stride: int, number: int, count: int, padded: int, out: int
) -> None:
    """Add `count` rows of values, each times its weight; four vectors of a row at a time."""
    wide = padded // 64 * 64
    for start in range(0, wide, 64):
        place = out + 4 * start
        a, b, c, d = load(place), load(place + 64), load(place + 128), load(place + 192)
        row = values + number * start
        for i in range(0, 4 * count, 4):
            weight = load_splat(weights + i)
            a = fma(weight, _load_numbers(row, number), a)
            b = fma(weight, _load_numbers(row + 16 * number, number), b)
            c = fma(weight, _load_numbers(row + 32 * number, number), c)
            d = fma(weight, _load_numbers(row + 48 * number, number), d)
            for line in range(0, 64 * number, 64):
                prefetch(row + line + AHEAD)
            row += stride
        store(place, a)
        store(place + 64, b)
        store(place + 128, c)
        store(place + 192, d)
    for start in range(wide, padded, 16):
        e = load(out + 4 * start)
        for i in range(count):
            value = _load_numbers(values + stride * i + number * start, number)
            e = fma(load_splat(weights + 4 * i), value, e)
        store(out + 4 * start, e)


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
    head_dim = load_i64(arguments + ATTENTION.head_dim)
    out = load_i64(arguments + ATTENTION.out) + token * load_i64(arguments + ATTENTION.out_stride)
    scale = 1.0 / load_f32(sums + 4 * _padded(head_dim) + _WEIGHT)
    for i in range(head_dim):
        store_f32(out + 4 * (head_dim * head + i), scale * load_f32(sums + 4 * i))


@device
def _first_position(arguments: int, position: int) -> int:
    window = load_i64(arguments + ATTENTION.window)
    return max(0, position + 1 - window) if window > 0 else 0


@device
def _append(arguments: int, kv_head: int, position: int, table: int, scratch: int) -> None:
    """The token's own keys and values of one head into the KV cache."""
    head_dim, number = load_i64(arguments + DECODE.head_dim), load_i64(arguments + DECODE.number)
    new_keys = load_i64(arguments + DECODE.new_keys) + 4 * head_dim * kv_head
    new_values = load_i64(arguments + DECODE.new_values) + 4 * head_dim * kv_head
    place = kv_head * load_i64(arguments + ATTENTION.head_stride)
    place += row_bytes(head_dim, number) * position
    keys = load_i64(arguments + ATTENTION.keys) + place
    values = load_i64(arguments + ATTENTION.values) + place
    norm, epsilon = load_i64(arguments + DECODE.k_norm), load_f32(arguments + DECODE.epsilon)
    append_head(new_keys, new_values, norm, epsilon, table, head_dim, number, keys, values, scratch)


@Kernel(DECODE)
def attention_decode(arguments: int, chunk: int, scratch: int) -> None:
    """One block of one key-value head for all its queries, to PARTS; chunks go head by head."""
    blocks = load_i64(arguments + ATTENTION.blocks)
    head_dim = load_i64(arguments + ATTENTION.head_dim)
    kv_head, block = chunk // blocks, chunk % blocks
    position = load_i64(load_i64(arguments + ATTENTION.position))
    if CHECKED:
        row = row_bytes(head_dim, load_i64(arguments + ATTENTION.number))
        if beyond_cache(position, 1, load_i64(arguments + ATTENTION.head_stride), row):
            return
    first = _first_position(arguments, position) + block * BLOCK
    if first > position:  # out of sight
        return
    count = min(BLOCK, position + 1 - first)
    share, number = load_i64(arguments + ATTENTION.share), load_i64(arguments + ATTENTION.number)
    padded, size = _padded(head_dim), row_bytes(head_dim, number)
    queries, scores = scratch, scratch + 4 * padded * share
    rows = scores + _SCORES * share
    table = load_i64(arguments + DECODE.table)
    if table != 0:
        table += 4 * head_dim * position
        if first + count > position:
            _append(arguments, kv_head, position, table, rows)
    for i in range(head_dim, padded):  # zeros after every row, which loading leaves alone
        for row in range(ROWS):
            store_f32(rows + 4 * (padded * row + i), 0.0)
    _load_queries(arguments, kv_head * share, table, queries)
    offset = kv_head * load_i64(arguments + ATTENTION.head_stride) + size * first
    keys = load_i64(arguments + ATTENTION.keys) + offset
    values = load_i64(arguments + ATTENTION.values) + offset
    in_place = number != 1 and head_dim == padded
    stride, width = (size, number) if in_place else (4 * padded, 4)
    for start in range(0, count, ROWS):
        some, there = min(ROWS, count - start), keys + size * start
        if not in_place:
            load_rows(there, some, head_dim, number, rows, stride)
            there = rows
        for head in range(share):
            out = scores + _SCORES * head + 4 * start
            _score(queries + 4 * padded * head, there, stride, width, some, padded, out)
    part_bytes = load_i64(arguments + ATTENTION.part_bytes)
    parts = load_i64(arguments + ATTENTION.parts) + (kv_head * share * blocks + block) * part_bytes
    for head in range(share):
        part = parts + head * blocks * part_bytes
        _weigh(scores + _SCORES * head, count, part + 4 * padded)
        for i in range(0, 4 * padded, 64):
            store(part + i, splat(0.0))
    for start in range(0, count, ROWS):
        some, there = min(ROWS, count - start), values + size * start
        if not in_place:
            load_rows(there, some, head_dim, number, rows, stride)
            there = rows
        for head in range(share):
            weights, part = scores + _SCORES * head + 4 * start, parts + head * blocks * part_bytes
            _add_values(weights, there, stride, width, some, padded, part)


@device
def combine_head(arguments: int, head: int) -> None:
    """Merge the partial results of one query head that `attention_decode` left in PARTS."""
    blocks = load_i64(arguments + ATTENTION.blocks)
    part_bytes = load_i64(arguments + ATTENTION.part_bytes)
    position = load_i64(load_i64(arguments + ATTENTION.position))
    first = _first_position(arguments, position)
    sums = load_i64(arguments + ATTENTION.parts) + head * blocks * part_bytes
    for block in range(1, (position - first) // BLOCK + 1):
        _merge(sums, sums + block * part_bytes, load_i64(arguments + ATTENTION.head_dim))
    _finish(arguments, sums, 0, head)


@Kernel(ATTENTION)
def attention_combine(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """`combine_head` of head `chunk`."""
    combine_head(arguments, chunk)
