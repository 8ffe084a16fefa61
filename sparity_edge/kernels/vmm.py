"""Vector times matrix, dense: y = W x for one token, W output-major (`spvmm` does the other).

Decoding is bound by the bytes of W, so numbers are widened in registers: nothing is lost that the
format did not lose. The products are those of `dots`. Activations have to be followed by zeros up
to a multiple of 64 numbers.
"""

from __future__ import annotations

from sparity_edge.kernels.dots import ACCUMULATE, AHEAD, BIAS, OUT, STEP, W, two_dots
from sparity_edge.kernels.fours import WIDE, four_dots, takes_four
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import DATA, OUTPUTS, ROW_BYTES
from sparity_edge.kernels.simd import load_f32, load_i64, store_f32
from sparity_edge.layout import Layout

# Bytes between what is asked for and what is used next: 128 lines, more than a core can wait for at
# once. With 5 and 8 KB rows of 576 numbers in int4 gave 0.82 and 0.94 of the memory's speed.
LEAD = 8192


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


@device
def _by_twos(arguments: int, first: int, last: int, scratch: int) -> None:
    """Outputs first..last."""
    matrix, ahead = load_i64(arguments + W), load_i64(arguments + AHEAD)
    row_bytes = load_i64(matrix + ROW_BYTES)
    for output in range(first, last + 1, 2):
        row = load_i64(matrix + DATA) + output * row_bytes
        other = row + row_bytes if output < last else row
        stream = row + ahead
        a, b = two_dots(matrix, row, other, arguments, stream, stream + 64, scratch)
        _put(arguments, output, a)
        if output < last:
            _put(arguments, output + 1, b)


@device
def _by_fours(arguments: int, first: int, last: int, scratch: int) -> None:
    """Outputs first..last; behind the last, that one is taken again."""
    matrix, ahead = load_i64(arguments + W), load_i64(arguments + AHEAD)
    row_bytes = load_i64(matrix + ROW_BYTES)
    end = load_i64(matrix + DATA) + last * row_bytes
    for output in range(first, last + 1, 4):
        row = load_i64(matrix + DATA) + output * row_bytes
        second, third = min(end, row + row_bytes), min(end, row + 2 * row_bytes)
        fourth = min(end, row + 3 * row_bytes)
        a, b, c, d = four_dots(matrix, row, second, third, fourth, arguments, ahead, scratch)
        _put(arguments, output, a)
        if output < last:
            _put(arguments, output + 1, b)
        if output + 1 < last:
            _put(arguments, output + 2, c)
        if output + 2 < last:
            _put(arguments, output + 3, d)


@device
def _last(arguments: int, first: int) -> int:
    step, outputs = load_i64(arguments + STEP), load_i64(load_i64(arguments + W) + OUTPUTS)
    return min(first + step, outputs) - 1


@Kernel
def vmm_output(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x, W output-major."""
    first = chunk * load_i64(arguments + STEP)
    _by_twos(arguments, first, _last(arguments, first), scratch)


@Kernel
def vmm_fours(arguments: int, chunk: int, scratch: int) -> None:
    """The same for the matrices that `fours` is for."""
    first = chunk * load_i64(arguments + STEP)
    _by_fours(arguments, first, _last(arguments, first), scratch)


def kernel_of(layout: Layout) -> tuple[Kernel, int]:
    """The faster kernel for a matrix, and how many rows it takes at a time."""
    return (vmm_fours, 4) if takes_four(layout) else (vmm_output, 2)


def ahead_of(layout: Layout, rows: int) -> int:
    """How many bytes on memory is asked for, always more than the `rows` taken at a time."""
    if layout.superblocks:
        return 5120 if layout.padded <= WIDE else LEAD
    if rows == 4 and layout.padded >= WIDE:
        return 4 * layout.row_bytes
    return LEAD + (rows - 1) * layout.row_bytes
