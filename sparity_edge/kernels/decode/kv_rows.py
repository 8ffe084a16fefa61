"""Reading and writing rows of the KV cache in kernels; `kv_format` says how they are stored.

`load_rows` brings 64 rows at a time to float32 in scratch memory that stays in the first-level
cache, where all heads that share them find them.
"""

from __future__ import annotations

from sparity_edge.kernels.checks import POSITION
from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.kv_format import GROUP, LARGEST, LEAST
from sparity_edge.kernels.simd.bounds import outside
from sparity_edge.kernels.simd.conversions import (
    load_bf16,
    load_bf16_alone,
    load_i8,
    load_i8_alone,
    store_bf16,
    store_bf16_alone,
    store_i8,
    store_i8_alone,
)
from sparity_edge.kernels.simd.memory import load, load_f32, load_splat, prefetch, store, store_f32
from sparity_edge.kernels.simd.vectors import fma, largest, maximum, mul, splat, sub, total

AHEAD = 4096  # prefetch distance in bytes (bench/parts.py has the share of attention)


@device
def row_bytes(head_dim: int, number: int) -> int:
    """Bytes of a row of head_dim numbers of `number` bytes (4, 2, or 1 with float32 scales)."""
    return number * head_dim if number != 1 else head_dim + 4 * ((head_dim + GROUP - 1) // GROUP)


@device
def beyond_cache(position: int, count: int, head_stride: int, row: int) -> bool:
    """Whether some positions are not all in the KV cache; called `if CHECKED` alone.

    Args:
        position: the first.
        count: how many follow each other.
        head_stride: bytes of the positions of a head.
        row: bytes of a position of it.
    """
    return outside(POSITION, position, max(0, head_stride // row - count + 1)) != 0


@device
def load_rows(rows: int, count: int, head_dim: int, number: int, out: int, stride: int) -> None:
    """Copy rows of the KV cache as float32, and prefetch the rows AHEAD of them.

    Args:
        rows: the address of the first row; rows follow each other.
        count: how many.
        head_dim: numbers of a row.
        number: bytes of a number.
        out: where the first row goes.
        stride: bytes from there to the next.
    """
    whole, size = head_dim // 16 * 16, row_bytes(head_dim, number)
    for _ in range(count):
        for line in range(0, size, 64):
            prefetch(rows + line + AHEAD)
        if number == 1:
            scales = rows + head_dim
            for i in range(0, whole, 16):
                scale = load_splat(scales + i // GROUP * 4)
                store(out + 4 * i, mul(load_i8(rows + i), scale))
            for i in range(whole, head_dim):
                scale_alone = load_f32(scales + i // GROUP * 4)
                store_f32(out + 4 * i, load_i8_alone(rows + i) * scale_alone)
        elif number == 2:
            for i in range(0, whole, 16):
                store(out + 4 * i, load_bf16(rows + 2 * i))
            for i in range(whole, head_dim):
                store_f32(out + 4 * i, load_bf16_alone(rows + 2 * i))
        else:
            for i in range(0, whole, 16):
                store(out + 4 * i, load(rows + 4 * i))
            for i in range(whole, head_dim):
                store_f32(out + 4 * i, load_f32(rows + 4 * i))
        rows, out = rows + size, out + stride


@device
def store_row(x: int, head_dim: int, number: int, row: int) -> None:
    """Round head_dim float32 into a row of the KV cache.

    Args:
        x: the address of the numbers, followed by zeros up to a multiple of 32.
        head_dim: how many there are.
        number: bytes of a number in the row.
        row: the address of the row.
    """
    whole = head_dim // 16 * 16
    if number == 1:
        _store_int8(x, head_dim, row)
    elif number == 2:
        for i in range(0, whole, 16):
            store_bf16(row + 2 * i, load(x + 4 * i))
        for i in range(whole, head_dim):
            store_bf16_alone(row + 2 * i, load_f32(x + 4 * i))
    else:
        for i in range(0, whole, 16):
            store(row + 4 * i, load(x + 4 * i))
        for i in range(whole, head_dim):
            store_f32(row + 4 * i, load_f32(x + 4 * i))


@device
def _store_int8(x: int, head_dim: int, row: int) -> None:
    for start in range(0, head_dim, GROUP):
        peak, check = splat(0.0), splat(0.0)
        for i in range(start, start + GROUP, 16):
            value = load(x + 4 * i)
            peak = maximum(peak, maximum(value, sub(splat(0.0), value)))
            check = fma(value, splat(0.0), check)
        top = largest(peak)
        inverse = LARGEST / top if top > LEAST else 0.0
        store_f32(row + head_dim + start // GROUP * 4, top / LARGEST + total(check))
        for i in range(start, min(start + GROUP, head_dim), 16):
            if i + 16 <= head_dim:
                store_i8(row + i, mul(load(x + 4 * i), splat(inverse)))
            else:
                for lane in range(i, head_dim):
                    store_i8_alone(row + lane, load_f32(x + 4 * lane) * inverse)
