"""Products of two rows of an output-major matrix with the activations, for `vmm` and gathers.

Two rows at a time, because both use the activations that were loaded (four bytes of those for each
byte of int4). Going through its rows, a function asks for two other runs of memory line by line:
those that the caller needs next. Asking for whole rows before each product left DRAM idle during
it: 22 GB/s against 31 on rows of 4 KB.

What keeps a core from reading while it computes (Zen 5, int4, one thread of 37 GB/s): lines asked
for into L2 only have to come into L1 a second time (31 against 35 GB/s), and every instruction
counts, since 64 bytes arrive each 1.5 ns.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.bytewise import (
    dot_bytes,
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
    times256,
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
# Bytes of a row that are asked for ahead of their use, where the rows follow each other in memory
# (AHEAD is not 0): more of long rows pushes the activations out of L1. With 14336 inputs in int4
# 3, 4 and 8 KB gave 0.72, 0.77 and 0.62 of the memory's speed.
NEAR = 4096


@device
def two_dots(
    matrix: int, row: int, other: int, arguments: int, first: int, second: int, scratch: int
) -> tuple[float, float]:
    """The products of two rows; `first` and `second` are asked for, a row's length each.

    Args:
        matrix: the words of the matrix.
        row, other: addresses of the rows.
        arguments: those above; where AHEAD is not 0, `first` and `second` are the rows so many
            bytes on, of which only NEAR bytes are asked for, like those of `row` and `other` before
            they are used.
        first, second: addresses.
        scratch: 128 bytes.
    """
    dtype = load_i64(matrix + DTYPE)
    if dtype >= INT4K:
        return two_superblock_dots(matrix, row, other, arguments, first, second, scratch)
    if dtype == INT8:
        return _int8(matrix, row, other, arguments, first, second, scratch)
    if dtype == INT4:
        return _int4(matrix, row, other, arguments, first, second, scratch)
    return _floats(matrix, row, other, load_i64(arguments + X), first, second)


@device
def _floats(
    matrix: int, row: int, other: int, x: int, first: int, second: int
) -> tuple[float, float]:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    size = load_i64(matrix + PADDED)
    if load_i64(matrix + DTYPE) == BF16:
        for i in range(0, size, 32):
            ask(first + 2 * i)
            ask(second + 2 * i)
            v, w = load(x + 4 * i), load(x + 4 * i + 64)
            a, c = fma(load_bf16(row + 2 * i), v, a), fma(load_bf16(row + 2 * i + 32), w, c)
            b, d = fma(load_bf16(other + 2 * i), v, b), fma(load_bf16(other + 2 * i + 32), w, d)
    else:
        for i in range(0, size, 16):
            ask(first + 4 * i)
            ask(second + 4 * i)
            v = load(x + 4 * i)
            a, b = fma(load(row + 4 * i), v, a), fma(load(other + 4 * i), v, b)
    return total(a) + total(c), total(b) + total(d)


@device
def _spread_scales(matrix: int, header: int, block: int) -> Any:
    """The float16 numbers of a row's header that belong to groups block..block+15 of 32 inputs."""
    group, left = load_i64(matrix + GROUP), load_i64(matrix + PADDED) // 32 - block
    if group == 32:
        return load_f16(header + 2 * block, left)
    if group == 64:
        return repeat2(load_f16(header + block, left // 2))
    return repeat4(load_f16(header + block // 2, left // 4))


@device
def _join_scales(
    matrix: int, row: int, block: int, arguments: int, parts: Any, offsets: Any, scratch: int
) -> Any:
    """Scales of weights, of activations and `parts` to scratch; returns the sum of offsets so far.

    Weights are multiplied as unsigned integers, so every group of inputs also contributes its sum
    times what the integer 0 stands for: the minimum, or -8 (int4) or -128 (int8) scales.
    """
    x_scales = load(load_i64(arguments + SCALES) + 4 * block)
    scales = mul(_spread_scales(matrix, row, block), x_scales)
    store(scratch, mul(scales, parts))
    if load_i64(matrix + MINIMUM) != 0:
        minima = _spread_scales(matrix, row + 2 * load_i64(matrix + GROUPS), block)
        scales = mul(minima, x_scales)
    return fma(scales, load(load_i64(arguments + SUMS) + 4 * block), offsets)


@device
def _ask_headers(matrix: int, block: int, first: int, second: int) -> None:
    """What of two rows' headers belongs to groups block..block+15."""
    ask(first + 2 * block)
    ask(second + 2 * block)
    if load_i64(matrix + MINIMUM) != 0:
        minima = 2 * load_i64(matrix + GROUPS) + 2 * block
        ask(first + minima)
        ask(second + minima)


@device
def _turn(groups: int, near: int, arguments: int) -> int:
    """The group at which a row has been asked for to its end, with `near` groups in NEAR bytes."""
    if load_i64(arguments + AHEAD) == 0:
        return 0
    return max(0, (groups - near + 15) // 16 * 16)


@device
def _digit_dot(weights: Any, x: int) -> Any:
    """Sums of products, by fours, with 64 activations whose high and low digits stand at x."""
    high = dot_bytes(no_integers(), weights, load_bytes(x))
    return to_floats(dot_bytes(times256(high), weights, load_bytes(x + 64)))


@device
def _int8(
    matrix: int, row: int, other: int, arguments: int, first: int, second: int, scratch: int
) -> tuple[float, float]:
    a, b, c, d, one = splat(0.0), splat(0.0), splat(0.0), splat(0.0), splat(1.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    groups, x = load_i64(matrix + PADDED) // 32, load_i64(arguments + DIGITS)
    turn = _turn(groups, NEAR // 32, arguments)
    ahead = behind = 32 * (groups - turn)
    for block in range(0, groups, 16):
        c = _join_scales(matrix, row, block, arguments, one, c, scratch)
        d = _join_scales(matrix, other, block, arguments, one, d, scratch + 64)
        _ask_headers(matrix, block, first, second)
        if block >= turn:
            ahead, behind = first - row - 32 * turn, second - other - 32 * turn
        count = min(16, groups - block)
        for index in range(0, count - 1, 2):
            scale = scratch + 4 * index
            ask(p + ahead)
            ask(q + behind)
            a = fma(splat_halves(scale, scale + 4), _digit_dot(load_offset_bytes(p), x), a)
            b = fma(splat_halves(scale + 64, scale + 68), _digit_dot(load_offset_bytes(q), x), b)
            p, q, x = p + 64, q + 64, x + 128
        if count % 2 != 0:
            scale = scratch + 4 * (count - 1)
            a = fma(load_splat(scale), _digit_dot(load_offset_bytes_half(p), x), a)
            b = fma(load_splat(scale + 64), _digit_dot(load_offset_bytes_half(q), x), b)
    return total(fma(splat(-128.0), c, a)), total(fma(splat(-128.0), d, b))


@device
def _int4(
    matrix: int, row: int, other: int, arguments: int, first: int, second: int, scratch: int
) -> tuple[float, float]:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    groups, x = load_i64(matrix + PADDED) // 32, load_i64(arguments + DIGITS)
    turn, parts = _turn(groups, NEAR // 16, arguments), high_nibble_scales()
    ahead = behind = 16 * (groups - turn)
    for block in range(0, groups, 16):
        c = _join_scales(matrix, row, block, arguments, parts, c, scratch)
        d = _join_scales(matrix, other, block, arguments, parts, d, scratch + 64)
        _ask_headers(matrix, block, first, second)
        if block >= turn:
            ahead, behind = first - row - 16 * turn, second - other - 16 * turn
        count = min(16, groups - block)
        for index in range(0, count - 2, 4):
            scale = scratch + 4 * index
            ask(p + ahead)
            ask(q + behind)
            v, w = load_bytes(p), load_bytes(q)
            a = fma(splat_pair(scale), _digit_dot(low_nibbles(v), x), a)
            b = fma(splat_pair(scale + 64), _digit_dot(low_nibbles(w), x), b)
            a = fma(splat_pair(scale + 8), _digit_dot(high_nibbles_in_place(v), x + 128), a)
            b = fma(splat_pair(scale + 72), _digit_dot(high_nibbles_in_place(w), x + 128), b)
            p, q, x = p + 64, q + 64, x + 256
        if count % 4 != 0:
            scale = scratch + 4 * (count - 2)
            a = fma(splat_pair(scale), _digit_dot(load_both_nibbles(p), x), a)
            b = fma(splat_pair(scale + 64), _digit_dot(load_both_nibbles(q), x), b)
    offset = 1.0 if load_i64(matrix + MINIMUM) != 0 else -8.0
    return total(fma(splat(offset), c, a)), total(fma(splat(offset), d, b))
