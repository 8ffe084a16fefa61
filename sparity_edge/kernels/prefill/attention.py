"""Attention of prefill: blocks of queries over blocks of 64 keys, causal (flash attention).

A chunk is one key-value head and some 96 rows: the queries of a few tokens by all heads that share
the keys. Scores, weights and weighted values of a block never leave L1 and L2; the largest score,
the sum of weights and the weighted values of each row are carried along (online softmax, Milakov
and Gimelshein, 2018; Dao et al., 2022).
"""

from __future__ import annotations

import math

from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.decode.kv_rows import beyond_cache, load_rows, row_bytes
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.simd.float_tiles import (
    TOKENS,
    WIDTH,
    load_sums,
    no_sums,
    step_rows_of_64,
    step_side_by_side,
    store_sums,
)
from sparity_edge.kernels.simd.memory import load, load_f32, load_i64, load_splat, store, store_f32
from sparity_edge.kernels.simd.transposes import transpose_floats
from sparity_edge.kernels.simd.vectors import (
    add,
    exp,
    fma,
    keep_lanes,
    largest,
    maximum,
    mul,
    splat,
    sub,
    total,
)
from sparity_edge.kernels.words import Words

KEYS_AT_ONCE = 64
# Of a chunk: loading and transposing 64 keys then costs a twentieth of multiplying them (AMD EPYC;
# bench/peers.py has prefill).
ROWS = 96
_SCORES = 4 * KEYS_AT_ONCE  # bytes of a row of scores

# POSITION is the address of the first query's position, WINDOW the positions a query sees (0: all).
# The KV cache is (key-value head, position) rows. A chunk takes STEP tokens; WIDE is head_dim
# padded to a multiple of 32.
ATTENTION = Words(
    "q q_stride keys values head_stride position window kv_heads share head_dim out out_stride "
    "count step wide scale number"
)


def step_of(share: int) -> int:
    """How many tokens a chunk takes when `share` query heads share their keys."""
    return max(1, ROWS // share)


def scratch_bytes(share: int, tokens: int, wide: int) -> int:
    """Bytes of scratch of a chunk of up to `tokens` tokens; `wide` is WIDE."""
    rows = -(-share * min(tokens, step_of(share)) // TOKENS) * TOKENS
    return rows * (8 * wide + _SCORES + 8) + 2 * _SCORES * wide


@device
def _check(rows: int, count: int, head_dim: int, stride: int) -> float:
    """0, or NaN if one of the numbers is NaN or infinite."""
    whole, odd, check = head_dim // 16 * 16, 0.0, splat(0.0)
    for _ in range(count):
        for i in range(0, 4 * whole, 64):
            check = fma(load(rows + i), splat(0.0), check)
        for i in range(4 * whole, 4 * head_dim, 4):
            odd += 0.0 * load_f32(rows + i)
        rows += stride
    return total(check) + odd


@device
def _load_queries(arguments: int, first: int, last: int, head: int, out: int) -> None:
    """Scaled queries of tokens first..last-1 as tiles (head_dim, 6)."""
    head_dim = load_i64(arguments + ATTENTION.head_dim)
    share = load_i64(arguments + ATTENTION.share)
    scale, tile, place = load_f32(arguments + ATTENTION.scale), 0, 0
    tile_bytes = 4 * TOKENS * load_i64(arguments + ATTENTION.wide)
    for token in range(first, last):
        q = load_i64(arguments + ATTENTION.q) + token * load_i64(arguments + ATTENTION.q_stride)
        for index in range(head * share, head * share + share):
            for i in range(head_dim):
                number = scale * load_f32(q + 4 * (index * head_dim + i))
                store_f32(out + tile + 4 * (TOKENS * i + place), number)
            place += 1
            if place == TOKENS:
                tile, place = tile + tile_bytes, 0


@device
def _score(arguments: int, q: int, keys: int, first: int, last: int, scores: int) -> None:
    """Scores of a tile for keys first..last-1 of the block, and for some of their neighbours."""
    for part in range(first // 32 * 32, last, 16 * WIDTH):
        tile = no_sums()
        for i in range(load_i64(arguments + ATTENTION.head_dim)):
            tile = step_side_by_side(tile, keys + _SCORES * i + 4 * part, q + 4 * TOKENS * i)
        store_sums(scores + 4 * part, _SCORES, tile)


@device
def _weigh(scores: int, first: int, last: int, state: int, mixed: int, wide: int) -> None:
    """A row's scores to weights, 0 outside first..last-1; rescales the row's sums so far."""
    peak = splat(-math.inf)
    for i in range(0, KEYS_AT_ONCE, 16):
        peak = maximum(peak, keep_lanes(load(scores + 4 * i), first - i, last - i))
    before = load_f32(state)
    top = max(before, largest(peak))
    weights = splat(0.0)
    for i in range(0, KEYS_AT_ONCE, 16):
        score = keep_lanes(load(scores + 4 * i), first - i, last - i)
        weight = exp(sub(score, splat(top)))
        store(scores + 4 * i, weight)
        weights = add(weights, weight)
    keep = math.exp(before - top)
    store_f32(state, top)
    store_f32(state + 4, keep * load_f32(state + 4) + total(weights))
    if keep != 1.0:
        for i in range(0, 4 * wide, 64):
            store(mixed + i, mul(splat(keep), load(mixed + i)))


@device
def _mix(weights: int, values: int, first: int, last: int, mixed: int, wide: int) -> None:
    """Add the values first..last-1 of the block to the rows of a tile."""
    for part in range(0, wide, 16 * WIDTH):
        tile = load_sums(mixed + 4 * part, 4 * wide)
        for key in range(first, last):
            tile = step_rows_of_64(tile, values + 4 * (wide * key + part), weights + 4 * key)
        store_sums(mixed + 4 * part, 4 * wide, tile)


@device
def _mix_row(weights: int, values: int, first: int, last: int, mixed: int, wide: int) -> None:
    """Add to one row alone, so that NaN stays with those that see it."""
    for key in range(first, last):
        weight = load_splat(weights + 4 * key)
        for i in range(0, 4 * wide, 64):
            store(mixed + i, fma(weight, load(values + 4 * wide * key + i), load(mixed + i)))


@device
def _first_position(arguments: int, position: int) -> int:
    window = load_i64(arguments + ATTENTION.window)
    return max(0, position + 1 - window) if window > 0 else 0


@device
def _attend(
    arguments: int, position: int, tokens: int, start: int, count: int, head: int, scratch: int
) -> None:
    """All rows of a chunk over the `count` keys from position `start` on."""
    share = load_i64(arguments + ATTENTION.share)
    head_dim = load_i64(arguments + ATTENTION.head_dim)
    wide, rows = load_i64(arguments + ATTENTION.wide), tokens * share
    tiles = (rows + TOKENS - 1) // TOKENS
    keys = scratch
    values = keys + _SCORES * wide
    q = values + _SCORES * wide
    mixed = q + 4 * TOKENS * tiles * wide
    scores = mixed + 4 * TOKENS * tiles * wide
    state = scores + _SCORES * TOKENS * tiles
    number = load_i64(arguments + ATTENTION.number)
    offset = row_bytes(head_dim, number) * start
    offset += head * load_i64(arguments + ATTENTION.head_stride)
    k = load_i64(arguments + ATTENTION.keys) + offset
    v = load_i64(arguments + ATTENTION.values) + offset
    load_rows(k, count, head_dim, number, values, 4 * wide)
    for i in range(0, count, 16):
        for d in range(0, head_dim, 16):
            rows_there = min(16, count - i) - 1
            place = values + 4 * (wide * i + d)
            transpose_floats(keys + _SCORES * d + 4 * i, _SCORES, place, 4 * wide, rows_there)
    load_rows(v, count, head_dim, number, values, 4 * wide)
    broken = _check(values, count, head_dim, 4 * wide)
    token, index = 0, 0  # of the next row: rows go token by token, head by head
    for tile in range(0, rows, TOKENS):
        ahead, behind = token, index + min(TOKENS, rows - tile) - 1
        while behind >= share:
            ahead, behind = ahead + 1, behind - share
        first = max(0, _first_position(arguments, position + token) - start)
        last = min(count, position + ahead + 1 - start)
        seen = first < last
        if seen:
            _score(arguments, q + 4 * wide * tile, keys, first, last, scores + _SCORES * tile)
        for row in range(tile, min(tile + TOKENS, rows)):
            if seen:
                begin = max(0, _first_position(arguments, position + token) - start)
                end = min(count, position + token + 1 - start)
                weights, sums = scores + _SCORES * row, mixed + 4 * wide * row
                if begin < end:
                    _weigh(weights, begin, end, state + 8 * row, sums, wide)
                    if broken != 0:
                        _mix_row(weights, values, begin, end, sums, wide)
                else:
                    for i in range(0, _SCORES, 64):
                        store(weights + i, splat(0.0))
            index += 1
            if index == share:
                token, index = token + 1, 0
        if seen and broken == 0:
            _mix(scores + _SCORES * tile, values, first, last, mixed + 4 * wide * tile, wide)


@device
def _finish(arguments: int, first: int, last: int, head: int, mixed: int, state: int) -> None:
    head_dim = load_i64(arguments + ATTENTION.head_dim)
    share = load_i64(arguments + ATTENTION.share)
    whole = head_dim // 16 * 16
    for token in range(first, last):
        out = load_i64(arguments + ATTENTION.out)
        out += token * load_i64(arguments + ATTENTION.out_stride)
        for index in range(head * share, head * share + share):
            place, scale = out + 4 * head_dim * index, 1.0 / load_f32(state + 4)
            for i in range(0, 4 * whole, 64):
                store(place + i, mul(splat(scale), load(mixed + i)))
            for i in range(4 * whole, 4 * head_dim, 4):
                store_f32(place + i, scale * load_f32(mixed + i))
            mixed, state = mixed + 4 * load_i64(arguments + ATTENTION.wide), state + 8


@Kernel(ATTENTION)
def attention_prefill(arguments: int, chunk: int, scratch: int) -> None:
    """STEP tokens of one key-value head; the last tokens, who see most, come first."""
    heads, step = load_i64(arguments + ATTENTION.kv_heads), load_i64(arguments + ATTENTION.step)
    count, wide = load_i64(arguments + ATTENTION.count), load_i64(arguments + ATTENTION.wide)
    if CHECKED:
        row = row_bytes(
            load_i64(arguments + ATTENTION.head_dim), load_i64(arguments + ATTENTION.number)
        )
        before = load_i64(load_i64(arguments + ATTENTION.position))
        if beyond_cache(before, count, load_i64(arguments + ATTENTION.head_stride), row):
            return
    block, head = (count + step - 1) // step - 1 - chunk // heads, chunk % heads
    first, last = block * step, min((block + 1) * step, count)
    tiles = ((last - first) * load_i64(arguments + ATTENTION.share) + TOKENS - 1) // TOKENS
    q = scratch + 2 * _SCORES * wide
    mixed = q + 4 * TOKENS * tiles * wide
    state = mixed + (4 * wide + _SCORES) * TOKENS * tiles
    _load_queries(arguments, first, last, head, q)
    for i in range(0, 4 * TOKENS * tiles * wide, 64):
        store(mixed + i, splat(0.0))
    for row in range(TOKENS * tiles):
        store_f32(state + 8 * row, -math.inf)
        store_f32(state + 8 * row + 4, 0.0)
    position = load_i64(load_i64(arguments + ATTENTION.position)) + first
    end = position + last - first
    for start in range(_first_position(arguments, position), end, KEYS_AT_ONCE):
        keys = min(KEYS_AT_ONCE, end - start)
        _attend(arguments, position, last - first, start, keys, head, scratch)
    _finish(arguments, first, last, head, mixed, state)
