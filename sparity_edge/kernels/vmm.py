"""Vector times matrix, dense: y = W x for one token, one kernel for each orientation.

Decoding is bound by the bytes of W, so numbers are widened in registers: nothing is lost that the
format did not lose. Output-major products are those of `dots`; input-major kernels are scaled adds
into sums that stay in L1. Activations have to be followed by zeros up to a multiple of 64 numbers.
"""

from __future__ import annotations

from sparity_edge.kernels.dots import ACCUMULATE, AHEAD, BIAS, OUT, STEP, W, X, two_dots
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import (
    BF16,
    BITS,
    DATA,
    DTYPE,
    GROUP,
    HEADER_BYTES,
    INPUTS,
    INT4,
    INT8,
    MINIMUM,
    OUTPUTS,
    PADDED,
    PANEL_BYTES,
    ROW_BYTES,
)
from sparity_edge.kernels.simd import (
    add,
    fma,
    load,
    load_bf16,
    load_f16,
    load_f32,
    load_high,
    load_i8,
    load_i64,
    load_low,
    load_splat,
    splat,
    store,
    store_f32,
    total,
)

MAX_COLUMNS = 512  # of the input-major kernel: its sums take 4 KB of scratch and stay in L1


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


@Kernel
def vmm_output(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x, W output-major."""
    matrix, ahead = load_i64(arguments + W), load_i64(arguments + AHEAD)
    row_bytes = load_i64(matrix + ROW_BYTES)
    first = chunk * load_i64(arguments + STEP)
    last = min(first + load_i64(arguments + STEP), load_i64(matrix + OUTPUTS)) - 1
    for output in range(first, last + 1, 2):
        row = load_i64(matrix + DATA) + output * row_bytes
        other = row + row_bytes if output < last else row
        a, b = two_dots(matrix, row, other, arguments, row + ahead, other + ahead, scratch)
        _put(arguments, output, a)
        if output < last:
            _put(arguments, output + 1, b)


# --- input-major: scaled adds -----------------------------------------------------------------


@device
def _clear(sums: int, columns: int) -> None:
    for c in range(0, columns, 16):
        store(sums + 4 * c, splat(0.0))


@device
def _add_rows(
    matrix: int, row: int, first: int, last: int, x: int, sums: int, columns: int
) -> None:
    """sums += x[i] * numbers of row i, for i = first..last-1; `row` is where row `first` starts."""
    dtype, stride = load_i64(matrix + DTYPE), load_i64(matrix + ROW_BYTES)
    for i in range(first, last):
        v = load_splat(x + 4 * i)
        if dtype == INT8:
            for c in range(0, columns, 16):
                store(sums + 4 * c, fma(v, load_i8(row + c), load(sums + 4 * c)))
        elif dtype == INT4:
            for c in range(0, columns, 32):
                place = sums + 4 * c
                store(place, fma(v, load_low(row + c // 2), load(place)))
                store(place + 64, fma(v, load_high(row + c // 2), load(place + 64)))
        elif dtype == BF16:
            for c in range(0, columns, 16):
                store(sums + 4 * c, fma(v, load_bf16(row + 2 * c), load(sums + 4 * c)))
        else:
            for c in range(0, columns, 16):
                store(sums + 4 * c, fma(v, load(row + 4 * c), load(sums + 4 * c)))
        row += stride


@device
def _add_scaled(matrix: int, header: int, part: int, sum_x: float, sums: int, columns: int) -> None:
    """sums += scales * part + minima * sum_x for one group of inputs; both applied once."""
    minima = header + 2 * load_i64(matrix + PADDED)
    for c in range(0, columns, 16):
        scale, value = load_f16(header + 2 * c, 16), load(sums + 4 * c)
        value = fma(scale, load(part + 4 * c), value)
        if load_i64(matrix + DTYPE) == INT4:
            if load_i64(matrix + MINIMUM) != 0:
                value = fma(load_f16(minima + 2 * c, 16), splat(sum_x), value)
            else:
                value = fma(scale, splat(-8.0 * sum_x), value)
        store(sums + 4 * c, value)


@Kernel
def vmm_input(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x (a multiple of 128, at most MAX_COLUMNS), W input-major."""
    matrix, x = load_i64(arguments + W), load_i64(arguments + X)
    start = chunk * load_i64(arguments + STEP)
    columns = min(load_i64(arguments + STEP), load_i64(matrix + PADDED) - start)
    inputs, group = load_i64(matrix + INPUTS), load_i64(matrix + GROUP)
    offset = start * load_i64(matrix + BITS) // 8
    sums, part = scratch, scratch + 4 * MAX_COLUMNS
    _clear(sums, columns)
    if group == 0:
        _add_rows(matrix, load_i64(matrix + DATA) + offset, 0, inputs, x, sums, columns)
    else:
        panel = load_i64(matrix + DATA)
        for first in range(0, inputs, group):
            last = min(first + group, inputs)
            row = panel + load_i64(matrix + HEADER_BYTES) + offset
            _clear(part, columns)
            _add_rows(matrix, row, first, last, x, part, columns)
            sum_x = splat(0.0)
            for i in range(first, last, 16):
                sum_x = add(sum_x, load(x + 4 * i))
            _add_scaled(matrix, panel + 2 * start, part, total(sum_x), sums, columns)
            panel += load_i64(matrix + PANEL_BYTES)
    for output in range(start, min(start + columns, load_i64(matrix + OUTPUTS))):
        _put(arguments, output, load_f32(sums + 4 * (output - start)))
