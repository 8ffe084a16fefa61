"""Vector times matrix, output-sparse: only the wanted outputs of an output-major W.

The rows are those of the dense kernel, gathered by an active list; rows further on are prefetched
meanwhile, since the hardware prefetcher does not follow jumps.
"""

from __future__ import annotations

from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.decode.dot_arguments import DOT, prefetch_lines, product_of
from sparity_edge.kernels.decode.dots import row_dot
from sparity_edge.kernels.decode.vmm import LEAD, put
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.matrix import DATA, OUTPUTS, ROW_BYTES
from sparity_edge.kernels.simd.memory import load_i64
from sparity_edge.kernels.sparse.active_rows import channel, unsound

VMMSP = DOT.plus("active parts")


@Kernel(VMMSP)
def vmmsp(arguments: int, chunk: int, scratch: int) -> None:
    """Part `chunk` of PARTS of the outputs on the list; the others stay as they are."""
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
        put(arguments, output, row_dot(product, row, wanted - row, scratch))
