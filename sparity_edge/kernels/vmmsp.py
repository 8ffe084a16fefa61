"""Vector times matrix, output-sparse: only the wanted outputs of an output-major W.

The rows are those of the dense kernel, two at a time, gathered by a list; those of the
entries that come next are asked for meanwhile, since a jump stops what the CPU fetches by itself.
"""

from __future__ import annotations

from sparity_edge.kernels.blocks import channel
from sparity_edge.kernels.dots import BIAS, OUT, W, two_dots
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import DATA, ROW_BYTES
from sparity_edge.kernels.simd import load_f32, load_i64, prefetch, store_f32

# Arguments: those of `vmm_output` with AHEAD 0, then these.
LIST, PARTS = (8 * word for word in range(10, 12))
AHEAD_ROWS = 2  # no worse than 4, 8 or 16 on rows of 4 KB, in runs that drift by a tenth


@device
def _ask_row(row: int, row_bytes: int) -> None:
    for line in range(0, row_bytes, 64):
        prefetch(row + line)


@device
def _put(arguments: int, output: int, value: float) -> None:
    bias = load_i64(arguments + BIAS)
    if bias != 0:
        value += load_f32(bias + 4 * output)
    store_f32(load_i64(arguments + OUT) + 4 * output, value)


@Kernel
def vmmsp(arguments: int, chunk: int, scratch: int) -> None:
    """Part `chunk` of PARTS of the outputs on the list; the others stay as they are."""
    matrix, active = load_i64(arguments + W), load_i64(arguments + LIST)
    count, parts = load_i64(active), load_i64(arguments + PARTS)
    start, stop = count * chunk // parts, count * (chunk + 1) // parts
    data, row_bytes = load_i64(matrix + DATA), load_i64(matrix + ROW_BYTES)
    for position in range(start, min(start + AHEAD_ROWS, stop)):
        _ask_row(data + channel(active, position) * row_bytes, row_bytes)
    for position in range(start, stop, 2):
        output = channel(active, position)
        partner = channel(active, min(position + 1, stop - 1))
        # Behind the end the last row is asked for once more, which is at hand.
        first = channel(active, min(position + AHEAD_ROWS, stop - 1))
        second = channel(active, min(position + AHEAD_ROWS + 1, stop - 1))
        a, b = two_dots(
            matrix, data + output * row_bytes, data + partner * row_bytes, arguments,
            data + first * row_bytes, data + second * row_bytes, scratch,
        )  # fmt: skip
        _put(arguments, output, a)
        if partner != output:
            _put(arguments, partner, b)
