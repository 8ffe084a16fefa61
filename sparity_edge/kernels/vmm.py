"""Vector times matrix, dense: y = W x for one token, W output-major (`spvmm` does the other).

Decoding is bound by the bytes of W, so numbers are widened in registers and multiplied with float32
activations: nothing is lost that the format did not lose. Rows go by two (one alone waits for its
own additions). Activations have to be followed by zeros up to a multiple of 64 numbers.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.bytewise import (
    dot_bytes,
    high_nibbles,
    join_digits,
    load_both_nibbles,
    load_bytes,
    load_offset_bytes,
    load_offset_bytes_half,
    low_nibbles,
    no_integers,
    splat_halves,
    splat_pair,
)
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import (
    BF16,
    DATA,
    DTYPE,
    GROUP,
    GROUPS,
    HEADER_BYTES,
    INT4,
    INT8,
    MINIMUM,
    OUTPUTS,
    PADDED,
    ROW_BYTES,
)
from sparity_edge.kernels.simd import (
    fma,
    load,
    load_bf16,
    load_f16,
    load_f32,
    load_i64,
    load_splat,
    mul,
    prefetch,
    repeat2,
    repeat4,
    splat,
    store,
    store_f32,
    total,
)

# Arguments of every kernel here.
W, X, BIAS, OUT, ACCUMULATE, STEP, AHEAD, DIGITS, SCALES, SUMS = (8 * word for word in range(10))


@device
def _put(arguments: int, output: int, value: float) -> None:
    """Write one output: value + bias + what is there, as the arguments say."""
    bias = load_i64(arguments + BIAS)
    out = load_i64(arguments + OUT) + 4 * output
    if bias != 0:
        value += load_f32(bias + 4 * output)
    if load_i64(arguments + ACCUMULATE) != 0:
        value += load_f32(out)
    store_f32(out, value)


# --- output-major: dot products ---------------------------------------------------------------


@device
def _dots_f32(matrix: int, row: int, other: int, x: int) -> tuple[float, float]:
    a, b = splat(0.0), splat(0.0)
    for i in range(0, load_i64(matrix + PADDED), 16):
        v = load(x + 4 * i)
        a = fma(load(row + 4 * i), v, a)
        b = fma(load(other + 4 * i), v, b)
    return total(a), total(b)


@device
def _dots_bf16(matrix: int, row: int, other: int, x: int) -> tuple[float, float]:
    a, b = splat(0.0), splat(0.0)
    for i in range(0, load_i64(matrix + PADDED), 16):
        v = load(x + 4 * i)
        a = fma(load_bf16(row + 2 * i), v, a)
        b = fma(load_bf16(other + 2 * i), v, b)
    return total(a), total(b)


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
    matrix: int, row: int, block: int, arguments: int, offsets: Any, scratch: int
) -> Any:
    """Scales of weights times those of activations to scratch; returns the sum of offsets so far.

    Weights are multiplied as unsigned integers, so every group of inputs also contributes its sum
    times what the integer 0 stands for: the minimum, or -8 (int4) or -128 (int8) scales.
    """
    x_scales = load(load_i64(arguments + SCALES) + 4 * block)
    scales = mul(_spread_scales(matrix, row, block), x_scales)
    prefetch(row + 2 * block + load_i64(arguments + AHEAD))
    store(scratch, scales)
    if load_i64(matrix + MINIMUM) != 0:
        row += 2 * load_i64(matrix + GROUPS)
        scales = mul(_spread_scales(matrix, row, block), x_scales)
        prefetch(row + 2 * block + load_i64(arguments + AHEAD))
    return fma(scales, load(load_i64(arguments + SUMS) + 4 * block), offsets)


@device
def _digit_dot(weights: Any, x: int) -> Any:
    """Sums of products, by fours, with 64 activations whose high and low digits stand at x."""
    high = dot_bytes(no_integers(), weights, load_bytes(x))
    return join_digits(high, dot_bytes(no_integers(), weights, load_bytes(x + 64)))


@device
def _dots_int8(
    matrix: int, row: int, other: int, arguments: int, scratch: int
) -> tuple[float, float]:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    groups, x = load_i64(matrix + PADDED) // 32, load_i64(arguments + DIGITS)
    ahead = load_i64(arguments + AHEAD)
    for block in range(0, groups, 16):
        c = _join_scales(matrix, row, block, arguments, c, scratch)
        d = _join_scales(matrix, other, block, arguments, d, scratch + 64)
        count = min(16, groups - block)
        for index in range(0, count - 1, 2):
            scale = scratch + 4 * index
            prefetch(p + ahead)
            prefetch(q + ahead)
            a = fma(splat_halves(scale, scale + 4), _digit_dot(load_offset_bytes(p), x), a)
            b = fma(splat_halves(scale + 64, scale + 68), _digit_dot(load_offset_bytes(q), x), b)
            p, q, x = p + 64, q + 64, x + 128
        if count % 2 != 0:
            scale = scratch + 4 * (count - 1)
            a = fma(load_splat(scale), _digit_dot(load_offset_bytes_half(p), x), a)
            b = fma(load_splat(scale + 64), _digit_dot(load_offset_bytes_half(q), x), b)
    return total(fma(splat(-128.0), c, a)), total(fma(splat(-128.0), d, b))


@device
def _dots_int4(
    matrix: int, row: int, other: int, arguments: int, scratch: int
) -> tuple[float, float]:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    groups, x = load_i64(matrix + PADDED) // 32, load_i64(arguments + DIGITS)
    ahead = load_i64(arguments + AHEAD)
    for block in range(0, groups, 16):
        c = _join_scales(matrix, row, block, arguments, c, scratch)
        d = _join_scales(matrix, other, block, arguments, d, scratch + 64)
        count = min(16, groups - block)
        for index in range(0, count - 2, 4):
            scale = scratch + 4 * index
            prefetch(p + ahead)
            prefetch(q + ahead)
            v, w = load_bytes(p), load_bytes(q)
            a = fma(splat_pair(scale), _digit_dot(low_nibbles(v), x), a)
            b = fma(splat_pair(scale + 64), _digit_dot(low_nibbles(w), x), b)
            a = fma(splat_pair(scale + 8), _digit_dot(high_nibbles(v), x + 128), a)
            b = fma(splat_pair(scale + 72), _digit_dot(high_nibbles(w), x + 128), b)
            p, q, x = p + 64, q + 64, x + 256
        if count % 4 != 0:
            scale = scratch + 4 * (count - 2)
            a = fma(splat_pair(scale), _digit_dot(load_both_nibbles(p), x), a)
            b = fma(splat_pair(scale + 64), _digit_dot(load_both_nibbles(q), x), b)
    offset = 1.0 if load_i64(matrix + MINIMUM) != 0 else -8.0
    return total(fma(splat(offset), c, a)), total(fma(splat(offset), d, b))


@Kernel
def vmm_output(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x, W output-major."""
    matrix, x = load_i64(arguments + W), load_i64(arguments + X)
    dtype, row_bytes = load_i64(matrix + DTYPE), load_i64(matrix + ROW_BYTES)
    first = chunk * load_i64(arguments + STEP)
    last = min(first + load_i64(arguments + STEP), load_i64(matrix + OUTPUTS)) - 1
    for output in range(first, last + 1, 2):
        row = load_i64(matrix + DATA) + output * row_bytes
        other = row + row_bytes if output < last else row
        if dtype == INT8:
            a, b = _dots_int8(matrix, row, other, arguments, scratch)
        elif dtype == INT4:
            a, b = _dots_int4(matrix, row, other, arguments, scratch)
        elif dtype == BF16:
            a, b = _dots_bf16(matrix, row, other, x)
        else:
            a, b = _dots_f32(matrix, row, other, x)
        _put(arguments, output, a)
        if output < last:
            _put(arguments, output + 1, b)
