"""Vector times matrix, output-sparse: only the wanted outputs of an output-major W.

The rows are those of the dense kernel, gathered by an active list; rows further on are prefetched
meanwhile, since the hardware prefetcher does not follow jumps. A kernel for each format, so that a
start compiles the one that its LM head needs.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.decode.dot_arguments import DOT, prefetch_lines, product_of
from sparity_edge.kernels.decode.dots import float_dot, int4_dot, int8_dot, kquant_row_dot
from sparity_edge.kernels.decode.vmm import LEAD, put
from sparity_edge.kernels.kernel import Kernel, inlined
from sparity_edge.kernels.matrix import DATA, OUTPUTS, ROW_BYTES
from sparity_edge.kernels.simd.memory import load_i64
from sparity_edge.kernels.sparse.active_rows import channel, unsound

VMMSP = DOT.plus("active parts")


@inlined
def multiply_listed(arguments: int, chunk: int, scratch: int, dot: Any) -> None:
    """Part `chunk` of PARTS of the outputs on the list, whose rows are multiplied by `dot`."""
    matrix, active = load_i64(arguments + DOT.matrix), load_i64(arguments + VMMSP.active)
    if CHECKED and unsound(active, load_i64(matrix + OUTPUTS)):
        return
    count, parts = load_i64(active), load_i64(arguments + VMMSP.parts)
    start, stop = count * chunk // parts, count * (chunk + 1) // parts
    data, row_bytes = load_i64(matrix + DATA), load_i64(matrix + ROW_BYTES)
    product, ahead = product_of(matrix, arguments), LEAD // row_bytes + 1
    for position in range(start, min(start + ahead, stop)):
        row = data + channel(active, position) * row_bytes
        prefetch_lines(False, row, row + row_bytes)
    for position in range(start, stop):
        output = channel(active, position)
        # Past the end the last row is prefetched once more, which is at hand.
        wanted = data + channel(active, min(position + ahead, stop - 1)) * row_bytes
        row = data + output * row_bytes
        put(arguments, output, dot(product, row, wanted - row, scratch))


@Kernel(VMMSP)
def vmmsp_floats(arguments: int, chunk: int, scratch: int) -> None:
    """Part `chunk` of PARTS of the outputs on the list, of f32 or bf16; others stay."""
    multiply_listed(arguments, chunk, scratch, float_dot)


@Kernel(VMMSP)
def vmmsp_int8(arguments: int, chunk: int, scratch: int) -> None:
    """`vmmsp_floats`, of int8."""
    multiply_listed(arguments, chunk, scratch, int8_dot)


@Kernel(VMMSP)
def vmmsp_int4(arguments: int, chunk: int, scratch: int) -> None:
    """`vmmsp_floats`, of int4."""
    multiply_listed(arguments, chunk, scratch, int4_dot)


@Kernel(VMMSP)
def vmmsp_kquants(arguments: int, chunk: int, scratch: int) -> None:
    """`vmmsp_floats`, of int4k or int6k."""
    multiply_listed(arguments, chunk, scratch, kquant_row_dot)


KERNELS = {
    "f32": vmmsp_floats,
    "bf16": vmmsp_floats,
    "int8": vmmsp_int8,
    "int4": vmmsp_int4,
    "int4k": vmmsp_kquants,
    "int6k": vmmsp_kquants,
}
