"""Element-wise kernels between the matrices: RMSNorm, rotary embedding, gates.

Gates also stand apart from what they multiply: where neurons are skipped, they are looked at first.
Rows end in zeros up to a whole vector, which stay zeros.
"""

from __future__ import annotations

import math

from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.decode.kv_rows import beyond_cache, row_bytes, store_row
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.simd.memory import load, load_f32, load_i64, store, store_f32
from sparity_edge.kernels.simd.vectors import above, add, div, exp, fma, mul, splat, sub, total
from sparity_edge.kernels.words import Words

BLOCK = 2048  # numbers of a row in one chunk, where operations go by blocks

RMSNORM = Words("x x_stride weight out out_stride size epsilon accumulate")
# WIDTH numbers of a row in BLOCKS chunks of it.
SILU = Words("x x_stride out out_stride width blocks")
MULTIPLY = SILU.plus("y y_stride")
RELU = SILU.plus("threshold")
SCALE = SILU.plus("factor")
SILU_MUL = Words("gate gate_stride up up_stride out out_stride width blocks")
# POSITION is the address of the first token's position. Of the cache TOKEN_STRIDE is from one
# position to the next, HEAD_STRIDE from one head to the next; its numbers have NUMBER bytes. Where
# NORM is not 0, heads go through RMSNorm with these weights first.
ROPE = Words("x x_stride table position heads head_dim out token_stride norm epsilon")
APPEND = ROPE.plus("head_stride values values_stride values_out number")


@device
def normalise(
    x: int, weight: int, out: int, size: int, epsilon: float, accumulate: int, start: int, stop: int
) -> None:
    """Numbers start..stop-1 of x / sqrt(mean(x**2) + epsilon) * weight.

    Args:
        x, weight: addresses of `size` float32, followed by zeros up to a multiple of 16.
        out: where as many go.
        size: of the whole row.
        epsilon: as in RMSNorm.
        accumulate: not 0: the result is added to what is there.
        start, stop: the part that is written; start is a multiple of 16.
    """
    squares = splat(0.0)
    for i in range(0, 4 * size, 64):
        squares = fma(load(x + i), load(x + i), squares)
    scale = splat(1.0 / math.sqrt(total(squares) / size + epsilon))
    for i in range(4 * start, 4 * min(stop, size), 64):
        normed = mul(mul(load(x + i), scale), load(weight + i))
        store(out + i, normed if accumulate == 0 else add(load(out + i), normed))


@Kernel(RMSNORM)
def rmsnorm(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Row `chunk`: x / sqrt(mean(x**2) + epsilon) * weight (+ OUT); all rows end in zeros."""
    x = load_i64(arguments + RMSNORM.x) + chunk * load_i64(arguments + RMSNORM.x_stride)
    out = load_i64(arguments + RMSNORM.out) + chunk * load_i64(arguments + RMSNORM.out_stride)
    weight, size = load_i64(arguments + RMSNORM.weight), load_i64(arguments + RMSNORM.size)
    epsilon, accumulate = RMSNORM.epsilon, load_i64(arguments + RMSNORM.accumulate)
    normalise(x, weight, out, size, load_f32(arguments + epsilon), accumulate, 0, size)


@device
def gate_numbers(gate: int, up: int, out: int, start: int, stop: int) -> None:
    """Numbers start..stop-1 of gate / (1 + exp(-gate)) * up.

    Args:
        gate, up, out: addresses of float32.
        start, stop: the part that is computed, in whole vectors from start, a multiple of 16.
    """
    for i in range(4 * start, 4 * stop, 64):
        g = load(gate + i)
        swish = div(g, add(splat(1.0), exp(sub(splat(0.0), g))))
        store(out + i, mul(swish, load(up + i)))


@Kernel(SILU_MUL)
def silu_mul(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """gate / (1 + exp(-gate)) * up for one block of one row; chunks go row by row."""
    blocks = load_i64(arguments + SILU_MUL.blocks)
    row, start = chunk // blocks, chunk % blocks * BLOCK
    gate = load_i64(arguments + SILU_MUL.gate) + row * load_i64(arguments + SILU_MUL.gate_stride)
    up = load_i64(arguments + SILU_MUL.up) + row * load_i64(arguments + SILU_MUL.up_stride)
    out = load_i64(arguments + SILU_MUL.out) + row * load_i64(arguments + SILU_MUL.out_stride)
    gate_numbers(gate, up, out, start, min(start + BLOCK, load_i64(arguments + SILU_MUL.width)))


@Kernel(SILU)
def silu(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """x / (1 + exp(-x)) for one block of one row; chunks go row by row."""
    blocks = load_i64(arguments + SILU.blocks)
    row, start = chunk // blocks, chunk % blocks * BLOCK
    x = load_i64(arguments + SILU.x) + row * load_i64(arguments + SILU.x_stride)
    out = load_i64(arguments + SILU.out) + row * load_i64(arguments + SILU.out_stride)
    for i in range(4 * start, 4 * min(start + BLOCK, load_i64(arguments + SILU.width)), 64):
        value = load(x + i)
        store(out + i, div(value, add(splat(1.0), exp(sub(splat(0.0), value)))))


@Kernel(RELU)
def relu(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """x where it is above THRESHOLD, else 0, for one block of one row; chunks go row by row."""
    blocks = load_i64(arguments + RELU.blocks)
    row, start = chunk // blocks, chunk % blocks * BLOCK
    x = load_i64(arguments + RELU.x) + row * load_i64(arguments + RELU.x_stride)
    out = load_i64(arguments + RELU.out) + row * load_i64(arguments + RELU.out_stride)
    threshold = splat(load_f32(arguments + RELU.threshold))
    for i in range(4 * start, 4 * min(start + BLOCK, load_i64(arguments + RELU.width)), 64):
        store(out + i, above(load(x + i), threshold))


@Kernel(SCALE)
def scale(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """x * FACTOR for one block of one row; chunks go row by row."""
    blocks = load_i64(arguments + SCALE.blocks)
    row, start = chunk // blocks, chunk % blocks * BLOCK
    x = load_i64(arguments + SCALE.x) + row * load_i64(arguments + SCALE.x_stride)
    out = load_i64(arguments + SCALE.out) + row * load_i64(arguments + SCALE.out_stride)
    factor = splat(load_f32(arguments + SCALE.factor))
    for i in range(4 * start, 4 * min(start + BLOCK, load_i64(arguments + SCALE.width)), 64):
        store(out + i, mul(load(x + i), factor))


@Kernel(MULTIPLY)
def multiply(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """x * y for one block of one row; chunks go row by row."""
    blocks = load_i64(arguments + MULTIPLY.blocks)
    row, start = chunk // blocks, chunk % blocks * BLOCK
    x = load_i64(arguments + MULTIPLY.x) + row * load_i64(arguments + MULTIPLY.x_stride)
    y = load_i64(arguments + MULTIPLY.y) + row * load_i64(arguments + MULTIPLY.y_stride)
    out = load_i64(arguments + MULTIPLY.out) + row * load_i64(arguments + MULTIPLY.out_stride)
    for i in range(4 * start, 4 * min(start + BLOCK, load_i64(arguments + MULTIPLY.width)), 64):
        store(out + i, mul(load(x + i), load(y + i)))


@device
def rotate(x: int, table: int, out: int, head_dim: int) -> None:
    """Rotate the pairs (i, i + head_dim / 2) of one head (RoPE).

    Args:
        x: the address of head_dim float32.
        table: the address of the position's row: cosines, then sines, head_dim / 2 each.
        out: where head_dim float32 go.
        head_dim: numbers of a head.
    """
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


@device
def norm_head(x: int, weight: int, epsilon: float, out: int, head_dim: int) -> None:
    """x / sqrt(mean(x**2) + epsilon) * weight of one head, whose neighbour may follow it.

    Args:
        x, weight: addresses of head_dim float32.
        epsilon: as in RMSNorm.
        out: where head_dim float32 go; may be x.
        head_dim: numbers of a head.
    """
    vectors = head_dim - head_dim % 16
    squares = splat(0.0)
    for i in range(0, 4 * vectors, 64):
        squares = fma(load(x + i), load(x + i), squares)
    square = total(squares)
    for i in range(4 * vectors, 4 * head_dim, 4):
        square += load_f32(x + i) * load_f32(x + i)
    factor = 1.0 / math.sqrt(square / head_dim + epsilon)
    scale = splat(factor)
    for i in range(0, 4 * vectors, 64):
        store(out + i, mul(mul(load(x + i), scale), load(weight + i)))
    for i in range(4 * vectors, 4 * head_dim, 4):
        store_f32(out + i, load_f32(x + i) * factor * load_f32(weight + i))


@device
def turn_head(x: int, norm: int, epsilon: float, table: int, out: int, head_dim: int) -> None:
    """`rotate` of one head, after `norm_head` where there are weights at `norm`."""
    if norm != 0:
        norm_head(x, norm, epsilon, out, head_dim)
        rotate(out, table, out, head_dim)
    else:
        rotate(x, table, out, head_dim)


@Kernel(ROPE)
def rope(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """Rotate all heads of token `chunk` by its position, after RMSNorm where there is a norm."""
    head_dim, norm = load_i64(arguments + ROPE.head_dim), load_i64(arguments + ROPE.norm)
    epsilon = load_f32(arguments + ROPE.epsilon)
    position = load_i64(load_i64(arguments + ROPE.position)) + chunk
    table = load_i64(arguments + ROPE.table) + 4 * head_dim * position
    x = load_i64(arguments + ROPE.x) + chunk * load_i64(arguments + ROPE.x_stride)
    out = load_i64(arguments + ROPE.out) + chunk * load_i64(arguments + ROPE.token_stride)
    for head in range(load_i64(arguments + ROPE.heads)):
        place = 4 * head_dim * head
        turn_head(x + place, norm, epsilon, table, out + place, head_dim)


@device
def append_head(
    keys: int,
    values: int,
    norm: int,
    epsilon: float,
    table: int,
    head_dim: int,
    number: int,
    keys_out: int,
    values_out: int,
    scratch: int,
) -> None:
    """Rotated keys and plain values of one head to their rows in the KV cache.

    Args:
        keys, values: addresses of head_dim float32.
        norm: the address of the weights of RMSNorm over a head of keys; 0: there is none.
        epsilon: of that.
        table: the position's row of cosines and sines.
        head_dim: numbers of a head.
        number: bytes of a number in the KV cache.
        keys_out, values_out: the rows.
        scratch: room for head_dim float32, padded to a multiple of 32.
    """
    # Rows are rounded in groups of 32, so zeros have to follow them.
    for i in range(head_dim, (head_dim + 31) // 32 * 32):
        store_f32(scratch + 4 * i, 0.0)
    turn_head(keys, norm, epsilon, table, scratch, head_dim)
    store_row(scratch, head_dim, number, keys_out)
    for i in range(0, 4 * head_dim, 4):
        store_f32(scratch + i, load_f32(values + i))
    store_row(scratch, head_dim, number, values_out)


@Kernel(APPEND)
def append(arguments: int, chunk: int, scratch: int) -> None:
    """Write rotated keys and plain values of token `chunk` into the cache at its position."""
    head_dim, number = load_i64(arguments + APPEND.head_dim), load_i64(arguments + APPEND.number)
    position = load_i64(load_i64(arguments + APPEND.position)) + chunk
    if CHECKED:
        row = row_bytes(head_dim, number)
        if beyond_cache(position, 1, load_i64(arguments + APPEND.head_stride), row):
            return
    table = load_i64(arguments + APPEND.table) + 4 * head_dim * position
    keys = load_i64(arguments + APPEND.x) + chunk * load_i64(arguments + APPEND.x_stride)
    values = load_i64(arguments + APPEND.values)
    values += chunk * load_i64(arguments + APPEND.values_stride)
    place = position * load_i64(arguments + APPEND.token_stride)
    norm, epsilon = load_i64(arguments + APPEND.norm), load_f32(arguments + APPEND.epsilon)
    for head in range(load_i64(arguments + APPEND.heads)):
        there, here = place + head * load_i64(arguments + APPEND.head_stride), 4 * head_dim * head
        keys_out = load_i64(arguments + APPEND.out) + there
        values_out = load_i64(arguments + APPEND.values_out) + there
        append_head(
            keys + here, values + here, norm, epsilon, table, head_dim, number, keys_out,
            values_out, scratch,
        )  # fmt: skip
