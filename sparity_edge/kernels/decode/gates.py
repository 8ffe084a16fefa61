"""Gates apart from what they multiply: where neurons are skipped, gates are looked at first."""

from __future__ import annotations

from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.simd.memory import load, load_i64, store
from sparity_edge.kernels.simd.vectors import add, div, exp, mul, splat, sub

BLOCK = 2048  # numbers in one chunk

X, X_STRIDE, OUT, OUT_STRIDE, WIDTH, BLOCKS = (8 * word for word in range(6))
Y, Y_STRIDE = (8 * word for word in range(6, 8))


@Kernel
def silu(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """x / (1 + exp(-x)) for one block of one row; chunks go row by row."""
    blocks = load_i64(arguments + BLOCKS)
    row, start = chunk // blocks, chunk % blocks * BLOCK
    x = load_i64(arguments + X) + row * load_i64(arguments + X_STRIDE)
    out = load_i64(arguments + OUT) + row * load_i64(arguments + OUT_STRIDE)
    for i in range(4 * start, 4 * min(start + BLOCK, load_i64(arguments + WIDTH)), 64):
        value = load(x + i)
        store(out + i, div(value, add(splat(1.0), exp(sub(splat(0.0), value)))))


@Kernel
def multiply(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """x * y for one block of one row; chunks go row by row."""
    blocks = load_i64(arguments + BLOCKS)
    row, start = chunk // blocks, chunk % blocks * BLOCK
    x = load_i64(arguments + X) + row * load_i64(arguments + X_STRIDE)
    y = load_i64(arguments + Y) + row * load_i64(arguments + Y_STRIDE)
    out = load_i64(arguments + OUT) + row * load_i64(arguments + OUT_STRIDE)
    for i in range(4 * start, 4 * min(start + BLOCK, load_i64(arguments + WIDTH)), 64):
        store(out + i, mul(load(x + i), load(y + i)))
