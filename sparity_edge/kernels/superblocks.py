"""Numbers in superblocks (int4k, int6k): activations, dot products, rows as floats, panels.

The scale of a group is a whole number times the float16 of its superblock of 256 inputs: sums of a
superblock are weighted by whole numbers (times the scales of activations) and multiplied by the
float16 once. The bytes of a scale are then all that a group costs; docs/format.md draws them.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.bytewise import high_nibbles, load_bytes, low_nibbles, splat_pair
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.matrix import DATA, DTYPE, HEADER_BYTES, INT4K, OUTPUTS, PADDED, ROW_BYTES
from sparity_edge.kernels.quads import (
    high_nibbles_of,
    load_i8_column,
    load_u8,
    low_nibbles_of,
    low_sixes,
    low_sixes_of,
    quad_dot,
    repeat_four,
    store_quad_digits,
    top_sixes,
    top_sixes_of,
    turn_low_sixes,
    turn_top_sixes,
    upper_half,
)
from sparity_edge.kernels.simd import (
    add,
    fma,
    largest,
    load,
    load_f16,
    load_i8,
    load_i64,
    load_splat,
    maximum,
    mul,
    splat,
    store,
    store_f32,
    sub,
    total,
)
from sparity_edge.kernels.simd import prefetch_near as ask
from sparity_edge.kernels.tiles import (
    PANEL,
    load_f16_column,
)
from sparity_edge.kernels.turns import turn_int4k, turn_int4k_scales
from sparity_edge.kernels.word_tiles import W_MINIMA, W_SCALES, W_UNIT

MOST = 127 * 256  # of an activation: its high digit has to fit into a signed byte
BLOCK = 256  # inputs of a superblock

# Floats about a superblock of activations. For int4k: the scales of its eight groups, and scale
# times sum of each. For int6k: the scales of its sixteens and -32 times their sums, as units go.
X_SIXTEENS, X_OFFSETS, X_FLOATS = 64, 128, 192

# Arguments of products: those of `dots`; SCALES are the floats above.
AHEAD, DIGITS, FLOATS = (8 * word for word in range(6, 9))


@device
def split_in_superblock(x: int, index: int, digits: int, floats: int) -> None:
    """Group `index` of 32 numbers of x: digits by units of 64, and the floats about them."""
    v, w = load(x + 128 * index), load(x + 128 * index + 64)
    sizes = maximum(maximum(v, sub(splat(0.0), v)), maximum(w, sub(splat(0.0), w)))
    most = largest(sizes)
    # What is no number is lost in the comparisons; 0 * x brings it back.
    scale = most / MOST + total(mul(add(v, w), splat(0.0)))
    inverse = splat(MOST / most) if most > 0 else splat(0.0)
    place = digits + index // 2 * 128 + index % 2 * 4
    left = total(store_quad_digits(place, mul(v, inverse)))
    right = total(store_quad_digits(place + 8, mul(w, inverse)))
    floats += index // 8 * X_FLOATS
    group = index % 8
    store_f32(floats + 4 * group, scale)
    store_f32(floats + 32 + 4 * group, scale * (left + right))
    lane = floats + X_SIXTEENS + group // 2 * 16 + group % 2 * 4
    store_f32(lane, scale)
    store_f32(lane + 8, scale)
    # Whole numbers: they have to cancel with sums of the same products.
    store_f32(lane + X_OFFSETS - X_SIXTEENS, -32 * left)
    store_f32(lane + X_OFFSETS - X_SIXTEENS + 8, -32 * right)


@device
def two_superblock_dots(
    matrix: int, row: int, other: int, arguments: int, first: int, second: int, scratch: int
) -> tuple[float, float]:
    """The products of two rows; asks for memory at `first` and `second` as `dots` says."""
    pace = 128 if load_i64(arguments + AHEAD) != 0 else 64
    for _ in range(0, load_i64(matrix + HEADER_BYTES), 64):
        ask(first)
        ask(second)
        first, second = first + pace, second + pace
    if load_i64(matrix + DTYPE) == INT4K:
        return _dots_int4k(matrix, row, other, arguments, first, second, pace, scratch)
    return _dots_int6k(matrix, row, other, arguments, first, second, pace, scratch)


@device
def _dots_int4k(
    matrix: int,
    row: int,
    other: int,
    arguments: int,
    first: int,
    second: int,
    pace: int,
    scratch: int,
) -> tuple[float, float]:
    a, b, c, d = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    x, about = load_i64(arguments + DIGITS), load_i64(arguments + FLOATS)
    blocks = load_i64(matrix + PADDED) // BLOCK
    factors, factors_other = row + 16 * blocks, other + 16 * blocks
    for start in range(0, blocks, 8):
        # The factors of eight superblocks, two of each.
        store(scratch, load_f16(factors + 4 * start, 16))
        store(scratch + 64, load_f16(factors_other + 4 * start, 16))
        place = scratch
        for _ in range(start, min(start + 8, blocks)):
            # Scales and minima of the eight groups, times those of activations.
            weighing = load(about)
            v, w = mul(load_u8(row), weighing), mul(load_u8(other), weighing)
            store(scratch + 128, v)
            store(scratch + 192, w)
            c, d = fma(v, load_splat(place + 4), c), fma(w, load_splat(place + 68), d)
            t, u = splat(0.0), splat(0.0)
            for scale in (scratch + 128, scratch + 144):
                ask(first)
                ask(second)
                first, second = first + pace, second + pace
                g, h = load_bytes(p), load_bytes(q)
                t = fma(splat_pair(scale), quad_dot(low_nibbles(g), x), t)
                u = fma(splat_pair(scale + 64), quad_dot(low_nibbles(h), x), u)
                t = fma(splat_pair(scale + 8), quad_dot(high_nibbles(g), x + 128), t)
                u = fma(splat_pair(scale + 72), quad_dot(high_nibbles(h), x + 128), u)
                p, q, x = p + 64, q + 64, x + 256
            a, b = fma(t, load_splat(place), a), fma(u, load_splat(place + 64), b)
            row, other, about, place = row + 16, other + 16, about + X_FLOATS, place + 8
    return total(sub(a, upper_half(c))), total(sub(b, upper_half(d)))


@device
def _dots_int6k(
    matrix: int,
    row: int,
    other: int,
    arguments: int,
    first: int,
    second: int,
    pace: int,
    scratch: int,
) -> tuple[float, float]:
    a, b = splat(0.0), splat(0.0)
    p, q = row + load_i64(matrix + HEADER_BYTES), other + load_i64(matrix + HEADER_BYTES)
    x, about = load_i64(arguments + DIGITS), load_i64(arguments + FLOATS)
    blocks = load_i64(matrix + PADDED) // BLOCK
    factors, factors_other = row + 16 * blocks, other + 16 * blocks
    for start in range(0, blocks, 16):
        store(scratch, load_f16(factors + 2 * start, 16))
        store(scratch + 64, load_f16(factors_other + 2 * start, 16))
        place = scratch
        for _ in range(start, min(start + 16, blocks)):
            weighing, offset = load(about + X_SIXTEENS), load(about + X_OFFSETS)
            t, u = mul(load_i8(row), weighing), mul(load_i8(other), weighing)
            scale = scratch + 128
            store(scale, t)
            store(scale + 64, u)
            t, u = mul(t, offset), mul(u, offset)
            e, f, g = load_bytes(p), load_bytes(p + 64), load_bytes(p + 128)
            h, i, j = load_bytes(q), load_bytes(q + 64), load_bytes(q + 128)
            for _ in range(3):
                ask(first)
                ask(second)
                first, second = first + pace, second + pace
            t = fma(repeat_four(scale), quad_dot(low_sixes(e), x), t)
            u = fma(repeat_four(scale + 64), quad_dot(low_sixes(h), x), u)
            t = fma(repeat_four(scale + 16), quad_dot(low_sixes(f), x + 128), t)
            u = fma(repeat_four(scale + 80), quad_dot(low_sixes(i), x + 128), u)
            t = fma(repeat_four(scale + 32), quad_dot(low_sixes(g), x + 256), t)
            u = fma(repeat_four(scale + 96), quad_dot(low_sixes(j), x + 256), u)
            t = fma(repeat_four(scale + 48), quad_dot(top_sixes(e, f, g), x + 384), t)
            u = fma(repeat_four(scale + 112), quad_dot(top_sixes(h, i, j), x + 384), u)
            a, b = fma(t, load_splat(place), a), fma(u, load_splat(place + 64), b)
            p, q, x, about = p + 192, q + 192, x + 2 * BLOCK, about + X_FLOATS
            row, other, place = row + 16, other + 16, place + 4
    return total(a), total(b)


# --- rows as floats -------------------------------------------------------------------------


@device
def unpack_superblocks(matrix: int, row: int, out: int, scratch: int) -> None:
    """An int4k or int6k row as PADDED float32, rounded as GGUF says; 128 bytes of scratch."""
    numbers, blocks = row + load_i64(matrix + HEADER_BYTES), load_i64(matrix + PADDED) // BLOCK
    factors = row + 16 * blocks
    for block in range(blocks):
        scales = row + 16 * block
        if load_i64(matrix + DTYPE) == INT4K:
            _scale_by_f16(scratch, load_u8(scales), factors + 4 * block)
            _scale_by_f16(scratch + 64, load_u8(scales), factors + 4 * block + 2)
            _unpack_int4k(numbers, scratch, out)
            numbers += 128
        else:
            _scale_by_f16(scratch, load_i8(scales), factors + 2 * block)
            _unpack_int6k(numbers, scratch, out)
            numbers += 192
        out += 4 * BLOCK


@device
def _scale_by_f16(out: int, values: Any, factor: int) -> None:
    """Write sixteen numbers times the float16 at `factor`."""
    store(out, load_f16(factor, 1))
    store(out, mul(values, load_splat(out)))


@device
def _unpack_int4k(numbers: int, scales: int, out: int) -> None:
    for group in range(8):
        scale, least = load_splat(scales + 4 * group), load_splat(scales + 96 + 4 * group)
        place = numbers + group // 4 * 64 + group % 2 * 4
        if group % 4 < 2:
            first, second = low_nibbles_of(place), low_nibbles_of(place + 8)
        else:
            first, second = high_nibbles_of(place), high_nibbles_of(place + 8)
        store(out, sub(mul(scale, first), least))
        store(out + 64, sub(mul(scale, second), least))
        out += 128


@device
def _unpack_int6k(numbers: int, scales: int, out: int) -> None:
    for sixteen in range(16):
        unit, half, odd = sixteen // 4, sixteen % 2, sixteen // 2 % 2
        lane = 2 * half + odd
        place = numbers + 4 * lane
        values = low_sixes_of(place + 64 * unit) if unit < 3 else top_sixes_of(place)
        scale = load_splat(scales + 16 * unit + 4 * lane)
        store(out, mul(scale, sub(values, splat(32.0))))
        out += 64


# --- panels for prompts ---------------------------------------------------------------------


@device
def word_panel_of_superblocks(matrix: int, first: int, start: int, stop: int, panel: int) -> None:
    """Units start..stop-1 (of 32 inputs) of 32 outputs, as `panels` has them.

    int6k has two rows of scales for a unit, for 16 inputs each; the second stands at W_MINIMA.
    """
    stride, outputs = load_i64(matrix + ROW_BYTES), load_i64(matrix + OUTPUTS)
    four_bits = load_i64(matrix + DTYPE) == INT4K
    for half in range(0, min(PANEL, outputs - first), 16):
        row = load_i64(matrix + DATA) + (first + half) * stride
        last = min(16, outputs - first - half) - 1
        for unit in range(start, stop):
            out = panel + (unit - start) * W_UNIT + 4 * half
            if not four_bits:
                _turn_int6k(matrix, row, stride, last, unit, out)
            elif unit % 8 == 0:
                _turn_int4k(matrix, row, stride, last, unit // 8, out)


@device
def _turn_int4k(matrix: int, row: int, stride: int, last: int, block: int, out: int) -> None:
    factors = row + load_i64(matrix + PADDED) // BLOCK * 16 + 4 * block
    factor = load_f16_column(factors, stride, last)
    least = load_f16_column(factors + 2, stride, last)
    turn_int4k_scales(out, row + 16 * block, stride, last, factor, least)
    numbers = row + load_i64(matrix + HEADER_BYTES) + 128 * block
    turn_int4k(out, numbers, stride, last)
    turn_int4k(out + 4 * W_UNIT, numbers + 64, stride, last)


@device
def _turn_int6k(matrix: int, row: int, stride: int, last: int, unit: int, out: int) -> None:
    block, group = unit // 8, unit % 8
    factor = load_f16_column(
        row + load_i64(matrix + PADDED) // BLOCK * 16 + 2 * block, stride, last
    )
    scales = row + 16 * block + group // 2 * 4 + group % 2
    store(out + W_SCALES, mul(factor, load_i8_column(scales, stride, last)))
    store(out + W_MINIMA, mul(factor, load_i8_column(scales + 2, stride, last)))
    numbers = row + load_i64(matrix + HEADER_BYTES) + 192 * block
    if group < 6:
        turn_low_sixes(out, numbers + group // 2 * 64, stride, last, group % 2)
    else:
        turn_top_sixes(out, numbers, stride, last, group % 2)
