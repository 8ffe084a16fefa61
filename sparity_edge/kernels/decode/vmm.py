"""GEMV, dense: y = W x for one token, W output-major (`spvmm` takes input-major matrices).

Decoding is bound by the bytes of W, so numbers are widened in registers: nothing is lost that the
format did not lose. The products are those of `dots`. Activations have to be followed by zeros up
to a multiple of 64 numbers.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.decode.dot_arguments import DOT, product_of
from sparity_edge.kernels.decode.dots import (
    following_float_dot,
    following_int4_dot,
    following_int8_dot,
    following_kquant_dot,
)
from sparity_edge.kernels.kernel import Kernel, inlined
from sparity_edge.kernels.matrix import DATA, OUTPUTS, ROW_BYTES
from sparity_edge.kernels.simd.memory import load_f32, load_i64, store_f32
from sparity_edge.packed.layout import Layout

# Prefetch distance in bytes: 128 cache lines, more than a core has line-fill buffers. 5 and 3 KB
# lose up to 5 and 13 % on rows of 2 KB, where memory is fast. The digits of WIDE inputs fill two
# thirds of L1, and 8 KB more would evict them (AMD EPYC; bench/kernels.py).
LEAD, WIDE_LEAD, WIDE = 8192, 5120, 8192


def lead_of(layout: Layout) -> int:
    """The prefetch distance for the rows of a matrix, in bytes."""
    if layout.k_quant:  # rows of 1536 lose 1 % with 8 KB, rows of 8960 2 to 14 % with 5
        return WIDE_LEAD if layout.padded < WIDE else LEAD
    return LEAD if layout.padded < WIDE else WIDE_LEAD


@inlined
def put(arguments: int, output: int, value: float) -> None:
    """Write one output: value + bias + what is there, as the argument block says."""
    bias = load_i64(arguments + DOT.bias)
    out = load_i64(arguments + DOT.out) + 4 * output
    if bias != 0:
        value += load_f32(bias + 4 * output)
    if load_i64(arguments + DOT.accumulate) != 0:
        value += load_f32(out)
    store_f32(out, value)


@inlined
def multiply_rows(arguments: int, chunk: int, scratch: int, dot: Any) -> None:
    """STEP outputs, whose rows are multiplied by `dot` (see `row_dot`)."""
    matrix, ahead = load_i64(arguments + DOT.matrix), load_i64(arguments + DOT.ahead)
    row_bytes = load_i64(matrix + ROW_BYTES)
    first = chunk * load_i64(arguments + DOT.step)
    last = min(first + load_i64(arguments + DOT.step), load_i64(matrix + OUTPUTS))
    product, row = product_of(matrix, arguments), load_i64(matrix + DATA) + first * row_bytes
    for output in range(first, last):
        put(arguments, output, dot(product, row, ahead, scratch))
        row += row_bytes


# A kernel for each format: with one for all, calls took a third of the time of rows of 300 bytes,
# and every start would compile what no matrix of its model needs.


@Kernel(DOT)
def vmm_int4(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x, W output-major in int4."""
    multiply_rows(arguments, chunk, scratch, following_int4_dot)


@Kernel(DOT)
def vmm_int8(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x, W output-major in int8."""
    multiply_rows(arguments, chunk, scratch, following_int8_dot)


@Kernel(DOT)
def vmm_kquants(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x, W output-major in int4k or int6k."""
    multiply_rows(arguments, chunk, scratch, following_kquant_dot)


@Kernel(DOT)
def vmm_floats(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x, W output-major in f32 or bf16."""
    multiply_rows(arguments, chunk, scratch, following_float_dot)
