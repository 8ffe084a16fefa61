"""Products of two rows of an output-major matrix with the activations, for gathers.

The arithmetic is that of `vmm`; but each function also asks for two other runs of memory, line by
line as it goes through its own rows: those that the caller needs next. Asking for whole rows before
each product instead left DRAM idle during it: 22 GB/s against 31 on rows of 4 KB.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.bytewise import (
    load_both_nibbles,
    load_bytes,
    load_offset_bytes,
    load_offset_bytes_half,
    low_nibbles,
    splat_halves,
    splat_pair,
)
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import (
    BF16,
    DTYPE,
    GROUPS,
    HEADER_BYTES,
    INT4,
    INT8,
    MINIMUM,
    PADDED,
)
from sparity_edge.kernels.simd import (
    fma,
    load,
    load_bf16,
    load_i64,
    load_splat,
    mul,
    prefetch_near,
    splat,
    store,
    total,
)
from sparity_edge.kernels.vmm import DIGITS, SCALES, SUMS, X, _spread_scales
from sparity_edge.kernels.words import dot_digits, for_nibbles, high_nibbles_in_place


@device
def two_dots(
    matrix: int, row: int, other: int, arguments: int, first: int, second: int, scratch: int
) -> tuple[float, float]:
    """The products of two rows; `first` and `second` are asked for, a row's length each.

    Arguments are those of `vmm_output` with AHEAD 0.
    """
    dtype = load_i64(matrix + DTYPE)
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
            prefetch_near(first + 2 * i)
            prefetch_near(second + 2 * i)
            v, w = load(x + 4 * i), load(x + 4 * i + 64)
            a, c = fma(load_bf16(row + 2 * i), v, a), fma(load_bf16(row + 2 * i + 32), w, c)
            b, d = fma(load_bf16(other + 2 * i), v, b), fma(load_bf16(other + 2 * i + 32), w, d)
    else:
        for i in range(0, size, 16):
            prefetch_near(first + 4 * i)
            prefetch_near(second + 4 * i)
            v = load(x + 4 * i)
            a, b = fma(load(row + 4 * i), v, a), fma(load(other + 4 * i), v, b)
    return total(a) + total(c), total(b) + total(d)


@device
def _ask_header(matrix: int, first: int, second: int) -> None:
    """The rest of two rows whose numbers' length has been asked for."""
    for line in range(0, load_i64(matrix + HEADER_BYTES) + 64, 64):
        prefetch_near(first + line)
        prefetch_near(second + line)


@device
def _join_scales(
    matrix: int, row: int, block: int, x_scales: Any, x_sums: Any, offsets: Any, scratch: int
) -> Any:
    """Scales of weights times those of activations to scratch; returns the sum of offsets so far.

    Weights are multiplied as unsigned integers, so every group of inputs also contributes its sum
    times what the integer 0 stands for: the minimum, or -8 (int4) or -128 (int8) scales.
    """
    scales = mul(_spread_scales(matrix, row, block), x_scales)
    store(scratch, for_nibbles(scales) if load_i64(matrix + DTYPE) == INT4 else scales)
    if load_i64(matrix + MINIMUM) != 0:
        minima = _spread_scales(matrix, row + 2 * load_i64(matrix + GROUPS), block)
        scales = mul(minima, x_scales)
    return fma(scales, x_sums, offsets)


@device
def _int8(
    matrix: int, row: int, other: int, arguments: int, first: int, second: int, scratch: int
) -> tuple[float, float]:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    groups, x = load_i64(matrix + PADDED) // 32, load_i64(arguments + DIGITS)
    for block in range(0, groups, 16):
        v = load(load_i64(arguments + SCALES) + 4 * block)
        w = load(load_i64(arguments + SUMS) + 4 * block)
        c = _join_scales(matrix, row, block, v, w, c, scratch)
        d = _join_scales(matrix, other, block, v, w, d, scratch + 64)
        count = min(16, groups - block)
        for index in range(0, count - 1, 2):
            scale = scratch + 4 * index
            prefetch_near(first)
            prefetch_near(second)
            a = fma(splat_halves(scale, scale + 4), dot_digits(load_offset_bytes(p), x), a)
            b = fma(splat_halves(scale + 64, scale + 68), dot_digits(load_offset_bytes(q), x), b)
            p, q, x = p + 64, q + 64, x + 128
            first, second = first + 64, second + 64
        if count % 2 != 0:
            scale = scratch + 4 * (count - 1)
            a = fma(load_splat(scale), dot_digits(load_offset_bytes_half(p), x), a)
            b = fma(load_splat(scale + 64), dot_digits(load_offset_bytes_half(q), x), b)
    _ask_header(matrix, first, second)
    return total(fma(splat(-128.0), c, a)), total(fma(splat(-128.0), d, b))


@device
def _int4(
    matrix: int, row: int, other: int, arguments: int, first: int, second: int, scratch: int
) -> tuple[float, float]:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    groups, x = load_i64(matrix + PADDED) // 32, load_i64(arguments + DIGITS)
    for block in range(0, groups, 16):
        v = load(load_i64(arguments + SCALES) + 4 * block)
        w = load(load_i64(arguments + SUMS) + 4 * block)
        c = _join_scales(matrix, row, block, v, w, c, scratch)
        d = _join_scales(matrix, other, block, v, w, d, scratch + 64)
        count = min(16, groups - block)
        for index in range(0, count - 2, 4):
            scale = scratch + 4 * index
            prefetch_near(first)
            prefetch_near(second)
            r, s = load_bytes(p), load_bytes(q)
            a = fma(splat_pair(scale), dot_digits(low_nibbles(r), x), a)
            b = fma(splat_pair(scale + 64), dot_digits(low_nibbles(s), x), b)
            a = fma(splat_pair(scale + 8), dot_digits(high_nibbles_in_place(r), x + 128), a)
            b = fma(splat_pair(scale + 72), dot_digits(high_nibbles_in_place(s), x + 128), b)
            p, q, x = p + 64, q + 64, x + 256
            first, second = first + 64, second + 64
        if count % 4 != 0:
            scale = scratch + 4 * (count - 2)
            a = fma(splat_pair(scale), dot_digits(load_both_nibbles(p), x), a)
            b = fma(splat_pair(scale + 64), dot_digits(load_both_nibbles(q), x), b)
    _ask_header(matrix, first, second)
    offset = 1.0 if load_i64(matrix + MINIMUM) != 0 else -8.0
    return total(fma(splat(offset), c, a)), total(fma(splat(offset), d, b))
