"""Matrix product for many tokens: Y = X W^T.

A chunk is a panel of 32 outputs: their weights are unpacked once to float32 (into cache) and
multiplied with all tokens in tiles of 4 outputs x 4 tokens, whose sixteen sums live in registers.
"""

from __future__ import annotations

from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import OUTPUTS, PADDED
from sparity_edge.kernels.simd import (
    load_f32,
    load_i64,
    store_f32,
    tile4x1_step,
    tile4x1_totals,
    tile4x1_zero,
    tile4x4_step,
    tile4x4_totals,
    tile4x4_zero,
)
from sparity_edge.kernels.unpack import unpack_columns, unpack_row

PANEL = 32  # outputs in a chunk
SMALL_SCRATCH = 256  # bytes before the panel: scales while unpacking, then the totals of a tile

W, X, X_STRIDE, TOKENS, BIAS, OUT, OUT_STRIDE, ACCUMULATE, DEPTH, INPUT_MAJOR = (
    8 * word for word in range(10)
)


@device
def _put_tile(arguments: int, token: int, tokens: int, output: int, totals: int) -> None:
    """Write 4 outputs of up to 4 tokens: total + bias + what is there, as the arguments say."""
    bias = load_i64(arguments + BIAS)
    outputs = load_i64(load_i64(arguments + W) + OUTPUTS)
    for i in range(min(4, outputs - output)):
        for j in range(tokens):
            row = load_i64(arguments + OUT) + (token + j) * load_i64(arguments + OUT_STRIDE)
            out = row + 4 * (output + i)
            value = load_f32(totals + 4 * (i * tokens + j))
            if bias != 0:
                value += load_f32(bias + 4 * (output + i))
            if load_i64(arguments + ACCUMULATE) != 0:
                value += load_f32(out)
            store_f32(out, value)


@Kernel
def gemm(arguments: int, chunk: int, scratch: int) -> None:
    """PANEL outputs of all TOKENS; DEPTH is the number of inputs filled up to a multiple of 16."""
    matrix, depth = load_i64(arguments + W), load_i64(arguments + DEPTH)
    panel, stride = scratch + SMALL_SCRATCH, 4 * depth
    first, outputs = chunk * PANEL, load_i64(matrix + OUTPUTS)
    if load_i64(arguments + INPUT_MAJOR) != 0:
        columns = min(PANEL, load_i64(matrix + PADDED) - first)
        unpack_columns(matrix, first, columns, panel, stride)
    else:
        for index in range(min(PANEL, outputs - first)):
            unpack_row(matrix, first + index, panel + index * stride, scratch)
    tokens, x_stride = load_i64(arguments + TOKENS), load_i64(arguments + X_STRIDE)
    whole = tokens - tokens % 4
    for token in range(0, whole, 4):
        x = load_i64(arguments + X) + token * x_stride
        for output in range(first, min(first + PANEL, outputs), 4):
            w = panel + (output - first) * stride
            tile = tile4x4_zero()
            for i in range(0, 4 * depth, 64):
                tile = tile4x4_step(tile, w + i, stride, x + i, x_stride)
            tile4x4_totals(tile, scratch)
            _put_tile(arguments, token, 4, output, scratch)
    for token in range(whole, tokens):
        x = load_i64(arguments + X) + token * x_stride
        for output in range(first, min(first + PANEL, outputs), 4):
            w = panel + (output - first) * stride
            row = tile4x1_zero()
            for i in range(0, 4 * depth, 64):
                row = tile4x1_step(row, w + i, stride, x + i, x_stride)
            tile4x1_totals(row, scratch)
            _put_tile(arguments, token, 1, output, scratch)
