"""Products of two rows of an output-major matrix with the activations, for `vmm` and gathers.

Two rows at a time, because both use the activations that were loaded (four bytes of those for each
byte of int4). Going through its rows, a function asks line by line for memory that the caller needs
next: two other rows, or, where rows follow each other, one stream. A slow memory wants that order:
two threads got 0.97 of 48 GB/s on rows of 1 KB, and 0.81 by asking for two rows side by side.
Asking for whole rows before each product left DRAM idle during it: 22 GB/s against 31 on 4 KB.

What keeps a core from reading while it computes (Zen 5, int4, one thread of 37 GB/s): lines asked
for into L2 only have to come into L1 a second time (31 against 35 GB/s), and every instruction
counts, since 64 bytes arrive each 1.5 ns.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.bytewise import (
    carried,
    dot_first_half,
    dot_second_half,
    high_nibble_scales,
    high_nibbles_in_place,
    load_both_nibbles,
    load_bytes,
    load_offset_bytes,
    load_offset_bytes_half,
    low_nibbles,
    no_integers,
    splat_halves,
    splat_pair,
    to_floats,
)
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import (
    BF16,
    DTYPE,
    GROUP,
    GROUPS,
    HEADER_BYTES,
    INT4,
    INT4K,
    INT8,
    MINIMUM,
    PADDED,
)
from sparity_edge.kernels.simd import (
    fma,
    load,
    load_bf16,
    load_f16,
    load_i64,
    load_splat,
    mul,
    repeat2,
    repeat4,
    splat,
    store,
    total,
)
from sparity_edge.kernels.simd import prefetch_near as ask
from sparity_edge.kernels.superblocks import two_superblock_dots

# Arguments of every kernel that multiplies a matrix with one token.
W, X, BIAS, OUT, ACCUMULATE, STEP, AHEAD, DIGITS, SCALES, SUMS = (8 * word for word in range(10))


@device
def two_dots(
    matrix: int, row: int, other: int, arguments: int, first: int, second: int, scratch: int
) -> tuple[float, float]:
    """The products of two rows; `first` and `second` are asked for, a row's length each.

    Args:
        matrix: the words of the matrix.
        row, other: addresses of the rows.
        arguments: those above.
        first, second: addresses; where AHEAD is not 0, two neighbouring lines of one stream.
        scratch: 128 bytes.
    """
    dtype = load_i64(matrix + DTYPE)
    if dtype >= INT4K:
        return two_superblock_dots(matrix, row, other, arguments, first, second, scratch)
    if dtype == INT8:
        return _int8(matrix, row, other, arguments, first, second, scratch)
    if dtype == INT4:
        return _int4(matrix, row, other, arguments, first, second, scratch)
    return _floats(matrix, row, other, arguments, first, second)


@device
def pace_of(arguments: int) -> int:
    """How far on the next lines to ask for are: those of two rows, or of one stream."""
    return 128 if load_i64(arguments + AHEAD) != 0 else 64


@device
def _floats(
    matrix: int, row: int, other: int, arguments: int, first: int, second: int
) -> tuple[float, float]:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    size, x, pace = load_i64(matrix + PADDED), load_i64(arguments + X), pace_of(arguments)
    if load_i64(matrix + DTYPE) == BF16:
        for i in range(0, size, 32):
            ask(first)
            ask(second)
            first, second = first + pace, second + pace
            v, w = load(x + 4 * i), load(x + 4 * i + 64)
            a, c = fma(load_bf16(row + 2 * i), v, a), fma(load_bf16(row + 2 * i + 32), w, c)
            b, d = fma(load_bf16(other + 2 * i), v, b), fma(load_bf16(other + 2 * i + 32), w, d)
    else:
        for i in range(0, size, 16):
            ask(first)
            ask(second)
            first, second = first + pace, second + pace
            v = load(x + 4 * i)
            a, b = fma(load(row + 4 * i), v, a), fma(load(other + 4 * i), v, b)
    return total(a) + total(c), total(b) + total(d)


@device
def _spread(group: int, header: int, block: int, left: int) -> Any:
    """Of a row's float16 numbers those of groups block..block+15 of 32 inputs; `left` are there."""
    if group == 32:
        return load_f16(header + 2 * block, left)
    if group == 64:
        return repeat2(load_f16(header + block, left // 2))
    return repeat4(load_f16(header + block // 2, left // 4))


@device
def minima_of(matrix: int) -> int:
    """How far the minima stand behind the scales in a header; 0 where there are none."""
    return 2 * load_i64(matrix + GROUPS) if load_i64(matrix + MINIMUM) != 0 else 0


@device
def join_scales(
    group: int,
    minima: int,
    header: int,
    block: int,
    left: int,
    x_scales: Any,
    x_sums: Any,
    parts: Any,
    offsets: Any,
    scratch: int,
) -> Any:
    """Scales of weights, of activations and `parts` to scratch; returns the offsets so far.

    Weights are multiplied as unsigned integers, so every group of inputs also contributes its sum
    times what the integer 0 stands for: the minimum, or -8 (int4) or -128 (int8) scales.
    """
    scales = mul(_spread(group, header, block, left), x_scales)
    store(scratch, mul(scales, parts))
    if minima != 0:
        scales = mul(_spread(group, header + minima, block, left), x_scales)
    return fma(scales, x_sums, offsets)


@device
def digit_dot(weights: Any, x: int) -> Any:
    """Sums of products, by fours, with 64 activations whose halves stand at x."""
    sums = carried(dot_first_half(no_integers(), weights, load_bytes(x)))
    return to_floats(dot_second_half(sums, weights, load_bytes(x + 64)))


@device
def _int8(
    matrix: int, row: int, other: int, arguments: int, first: int, second: int, scratch: int
) -> tuple[float, float]:
    a, b, c, d, one = splat(0.0), splat(0.0), splat(0.0), splat(0.0), splat(1.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    groups, x = load_i64(matrix + PADDED) // 32, load_i64(arguments + DIGITS)
    group, x_scales = load_i64(matrix + GROUP), load_i64(arguments + SCALES)
    x_sums = load_i64(arguments + SUMS)
    pace = pace_of(arguments)
    for _ in range(0, load_i64(matrix + HEADER_BYTES), 64):
        ask(first)
        ask(second)
        first, second = first + pace, second + pace
    for block in range(0, groups, 16):
        left, v, w = groups - block, load(x_scales + 4 * block), load(x_sums + 4 * block)
        c = join_scales(group, 0, row, block, left, v, w, one, c, scratch)
        d = join_scales(group, 0, other, block, left, v, w, one, d, scratch + 64)
        count = min(16, left)
        for index in range(0, count - 1, 2):
            scale = scratch + 4 * index
            ask(first)
            ask(second)
            first, second = first + pace, second + pace
            a = fma(splat_halves(scale, scale + 4), digit_dot(load_offset_bytes(p), x), a)
            b = fma(splat_halves(scale + 64, scale + 68), digit_dot(load_offset_bytes(q), x), b)
            p, q, x = p + 64, q + 64, x + 128
        if count % 2 != 0:
            scale = scratch + 4 * (count - 1)
            a = fma(load_splat(scale), digit_dot(load_offset_bytes_half(p), x), a)
            b = fma(load_splat(scale + 64), digit_dot(load_offset_bytes_half(q), x), b)
    return total(fma(splat(-128.0), c, a)), total(fma(splat(-128.0), d, b))


@device
def _int4(
    matrix: int, row: int, other: int, arguments: int, first: int, second: int, scratch: int
) -> tuple[float, float]:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    groups, x = load_i64(matrix + PADDED) // 32, load_i64(arguments + DIGITS)
    group, x_scales = load_i64(matrix + GROUP), load_i64(arguments + SCALES)
    x_sums, minima = load_i64(arguments + SUMS), minima_of(matrix)
    pace, parts = pace_of(arguments), high_nibble_scales()
    for _ in range(0, load_i64(matrix + HEADER_BYTES), 64):
        ask(first)
        ask(second)
        first, second = first + pace, second + pace
    for block in range(0, groups, 16):
        left, v, w = groups - block, load(x_scales + 4 * block), load(x_sums + 4 * block)
        c = join_scales(group, minima, row, block, left, v, w, parts, c, scratch)
        d = join_scales(group, minima, other, block, left, v, w, parts, d, scratch + 64)
        count = min(16, left)
        for index in range(0, count - 2, 4):
            scale = scratch + 4 * index
            ask(first)
            ask(second)
            first, second = first + pace, second + pace
            g, h = load_bytes(p), load_bytes(q)
            a = fma(splat_pair(scale), digit_dot(low_nibbles(g), x), a)
            b = fma(splat_pair(scale + 64), digit_dot(low_nibbles(h), x), b)
            a = fma(splat_pair(scale + 8), digit_dot(high_nibbles_in_place(g), x + 128), a)
            b = fma(splat_pair(scale + 72), digit_dot(high_nibbles_in_place(h), x + 128), b)
            p, q, x = p + 64, q + 64, x + 256
        if count % 4 != 0:
            scale = scratch + 4 * (count - 2)
            a = fma(splat_pair(scale), digit_dot(load_both_nibbles(p), x), a)
            b = fma(splat_pair(scale + 64), digit_dot(load_both_nibbles(q), x), b)
    offset = splat(1.0 if minima != 0 else -8.0)
    return total(fma(offset, c, a)), total(fma(offset, d, b))
