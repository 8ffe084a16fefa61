"""What happens between the matrices: RMSNorm, rotary positions, the gate of the FFN."""

from __future__ import annotations

import math

from sparity_edge.kernels.decode.kv_rows import store_row
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.simd.memory import load, load_f32, load_i64, store, store_f32
from sparity_edge.kernels.simd.vectors import add, div, exp, fma, mul, splat, sub, total

BLOCK = 2048  # numbers of the gate in one chunk

X, X_STRIDE, WEIGHT, OUT, OUT_STRIDE, SIZE, EPSILON = (8 * word for word in range(7))


@device
def normalise(
    x: int, weight: int, out: int, size: int, epsilon: float, start: int, stop: int
) -> None:
    """Numbers start..stop-1 (start a multiple of 16) of x / sqrt(mean(x**2) + epsilon) * weight."""
    squares = splat(0.0)
    for i in range(0, 4 * size, 64):
        squares = fma(load(x + i), load(x + i), squares)
    scale = splat(1.0 / math.sqrt(total(squares) / size + epsilon))
    for i in range(4 * start, 4 * min(stop, size), 64):
        store(out + i, mul(mul(load(x + i), scale), load(weight + i)))


@Kernel
def rmsnorm(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Row `chunk`: x / sqrt(mean(x**2) + epsilon) * weight; rows and weight end in zeros."""
    x = load_i64(arguments + X) + chunk * load_i64(arguments + X_STRIDE)
    out = load_i64(arguments + OUT) + chunk * load_i64(arguments + OUT_STRIDE)
    weight, size = load_i64(arguments + WEIGHT), load_i64(arguments + SIZE)
    normalise(x, weight, out, size, load_f32(arguments + EPSILON), 0, size)


GATE, GATE_STRIDE, UP, UP_STRIDE, PRODUCT, PRODUCT_STRIDE, WIDTH, BLOCKS = (
    8 * word for word in range(8)
)


@device
def gate_numbers(gate: int, up: int, out: int, start: int, stop: int) -> None:
    """Numbers start..stop-1 (start a multiple of 16) of gate / (1 + exp(-gate)) * up."""
    for i in range(4 * start, 4 * stop, 64):
        g = load(gate + i)
        swish = div(g, add(splat(1.0), exp(sub(splat(0.0), g))))
        store(out + i, mul(swish, load(up + i)))


@Kernel
def silu_mul(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """gate / (1 + exp(-gate)) * up for one block of one row; chunks go row by row."""
    blocks = load_i64(arguments + BLOCKS)
    row, start = chunk // blocks, chunk % blocks * BLOCK
    gate = load_i64(arguments + GATE) + row * load_i64(arguments + GATE_STRIDE)
    up = load_i64(arguments + UP) + row * load_i64(arguments + UP_STRIDE)
    out = load_i64(arguments + PRODUCT) + row * load_i64(arguments + PRODUCT_STRIDE)
    gate_numbers(gate, up, out, start, min(start + BLOCK, load_i64(arguments + WIDTH)))


# Arguments of `rope` and `append`; POSITION is the address of the first token's position.
HEADS_IN, IN_STRIDE, TABLE, POSITION, HEADS, HEAD_DIM, HEADS_OUT, TOKEN_STRIDE, HEAD_STRIDE = (
    8 * word for word in range(9)
)
VALUES, VALUES_STRIDE, VALUES_OUT, NUMBER = (8 * word for word in range(9, 13))


@device
def rotate(x: int, table: int, out: int, head_dim: int) -> None:
    """Rotate the pairs (i, i + head_dim / 2); the table row holds cosines, then sines."""
    half = head_dim // 2
    vectors = half - half % 16
    for i in range(0, 4 * vectors, 64):
        j = i + 4 * half
        v, w, cosines, sines = load(x + i), load(x + j), load(table + i), load(table + j)
        store(out + i, sub(mul(v, cosines), mul(w, sines)))
        store(out + j, add(mul(w, cosines), mul(v, sines)))
    for i in range(vectors, half):
        a, b = load_f32(x + 4 * i), load_f32(x + 4 * (i + half))
        cosine, sine = load_f32(table + 4 * i), load_f32(table + 4 * (i + half))
        store_f32(out + 4 * i, a * cosine - b * sine)
        store_f32(out + 4 * (i + half), b * cosine + a * sine)


@Kernel
def rope(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Rotate all heads of token `chunk` by its position."""
    head_dim = load_i64(arguments + HEAD_DIM)
    position = load_i64(load_i64(arguments + POSITION)) + chunk
    table = load_i64(arguments + TABLE) + 4 * head_dim * position
    x = load_i64(arguments + HEADS_IN) + chunk * load_i64(arguments + IN_STRIDE)
    out = load_i64(arguments + HEADS_OUT) + chunk * load_i64(arguments + TOKEN_STRIDE)
    for head in range(load_i64(arguments + HEADS)):
        rotate(x + 4 * head_dim * head, table, out + 4 * head_dim * head, head_dim)


@device
def append_head(
    keys: int,
    values: int,
    table: int,
    head_dim: int,
    number: int,
    keys_out: int,
    values_out: int,
    scratch: int,
) -> None:
    """Rotated keys and plain values of one head to their rows in the cache."""
    # Rows are rounded in groups of 32, so zeros have to follow them.
    for i in range(head_dim, (head_dim + 31) // 32 * 32):
        store_f32(scratch + 4 * i, 0.0)
    rotate(keys, table, scratch, head_dim)
    store_row(scratch, head_dim, number, keys_out)
    for i in range(0, 4 * head_dim, 4):
        store_f32(scratch + i, load_f32(values + i))
    store_row(scratch, head_dim, number, values_out)


@Kernel
def append(arguments: int, chunk: int, scratch: int) -> None:
    """Write rotated keys and plain values of token `chunk` into the cache at its position."""
    head_dim, number = load_i64(arguments + HEAD_DIM), load_i64(arguments + NUMBER)
    position = load_i64(load_i64(arguments + POSITION)) + chunk
    table = load_i64(arguments + TABLE) + 4 * head_dim * position
    keys = load_i64(arguments + HEADS_IN) + chunk * load_i64(arguments + IN_STRIDE)
    values = load_i64(arguments + VALUES) + chunk * load_i64(arguments + VALUES_STRIDE)
    place = position * load_i64(arguments + TOKEN_STRIDE)
    for head in range(load_i64(arguments + HEADS)):
        there, here = place + head * load_i64(arguments + HEAD_STRIDE), 4 * head_dim * head
        keys_out = load_i64(arguments + HEADS_OUT) + there
        values_out = load_i64(arguments + VALUES_OUT) + there
        append_head(
            keys + here, values + here, table, head_dim, number, keys_out, values_out, scratch
        )
