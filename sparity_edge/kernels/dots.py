"""Products of two rows of an output-major matrix with the activations, for gathers.

The arithmetic is that of `vmm`; but each function also asks for two other runs of memory, line by
line as it goes through its own rows: those that the caller needs next. Asking for whole rows before
each product instead left DRAM idle during it: 22 GB/s against 31 on rows of 4 KB.
"""

from __future__ import annotations

from sparity_edge.kernels.bytewise import (
    high_nibbles,
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
    load_i64,
    load_splat,
    prefetch,
    splat,
    total,
)
from sparity_edge.kernels.superblocks import two_superblock_dots
from sparity_edge.kernels.vmm import DIGITS, X, _digit_dot, _join_scales


@device
def two_dots(
    matrix: int, row: int, other: int, arguments: int, first: int, second: int, scratch: int
) -> tuple[float, float]:
    """The products of two rows; `first` and `second` are asked for, a row's length each.

    Arguments are those of `vmm_output` with AHEAD 0.
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
            prefetch(first + 2 * i)
            prefetch(second + 2 * i)
            v, w = load(x + 4 * i), load(x + 4 * i + 64)
            a, c = fma(load_bf16(row + 2 * i), v, a), fma(load_bf16(row + 2 * i + 32), w, c)
            b, d = fma(load_bf16(other + 2 * i), v, b), fma(load_bf16(other + 2 * i + 32), w, d)
    else:
        for i in range(0, size, 16):
            prefetch(first + 4 * i)
            prefetch(second + 4 * i)
            v = load(x + 4 * i)
            a, b = fma(load(row + 4 * i), v, a), fma(load(other + 4 * i), v, b)
    return total(a) + total(c), total(b) + total(d)


@device
def _ask_header(matrix: int, first: int, second: int) -> None:
    """The rest of two rows whose numbers' length has been asked for."""
    for line in range(0, load_i64(matrix + HEADER_BYTES) + 64, 64):
        prefetch(first + line)
        prefetch(second + line)


@device
def _int8(
    matrix: int, row: int, other: int, arguments: int, first: int, second: int, scratch: int
) -> tuple[float, float]:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    groups, x = load_i64(matrix + PADDED) // 32, load_i64(arguments + DIGITS)
    for block in range(0, groups, 16):
        c = _join_scales(matrix, row, block, arguments, c, scratch)
        d = _join_scales(matrix, other, block, arguments, d, scratch + 64)
        count = min(16, groups - block)
        for index in range(0, count - 1, 2):
            scale = scratch + 4 * index
            prefetch(first)
            prefetch(second)
            a = fma(splat_halves(scale, scale + 4), _digit_dot(load_offset_bytes(p), x), a)
            b = fma(splat_halves(scale + 64, scale + 68), _digit_dot(load_offset_bytes(q), x), b)
            p, q, x = p + 64, q + 64, x + 128
            first, second = first + 64, second + 64
        if count % 2 != 0:
            scale = scratch + 4 * (count - 1)
            a = fma(load_splat(scale), _digit_dot(load_offset_bytes_half(p), x), a)
            b = fma(load_splat(scale + 64), _digit_dot(load_offset_bytes_half(q), x), b)
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
        c = _join_scales(matrix, row, block, arguments, c, scratch)
        d = _join_scales(matrix, other, block, arguments, d, scratch + 64)
        count = min(16, groups - block)
        for index in range(0, count - 2, 4):
            scale = scratch + 4 * index
            prefetch(first)
            prefetch(second)
            v, w = load_bytes(p), load_bytes(q)
            a = fma(splat_pair(scale), _digit_dot(low_nibbles(v), x), a)
            b = fma(splat_pair(scale + 64), _digit_dot(low_nibbles(w), x), b)
            a = fma(splat_pair(scale + 8), _digit_dot(high_nibbles(v), x + 128), a)
            b = fma(splat_pair(scale + 72), _digit_dot(high_nibbles(w), x + 128), b)
            p, q, x = p + 64, q + 64, x + 256
            first, second = first + 64, second + 64
        if count % 4 != 0:
            scale = scratch + 4 * (count - 2)
            a = fma(splat_pair(scale), _digit_dot(load_both_nibbles(p), x), a)
            b = fma(splat_pair(scale + 64), _digit_dot(load_both_nibbles(q), x), b)
    _ask_header(matrix, first, second)
    offset = 1.0 if load_i64(matrix + MINIMUM) != 0 else -8.0
    return total(fma(splat(offset), c, a)), total(fma(splat(offset), d, b))
