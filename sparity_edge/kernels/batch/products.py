"""Several tokens of as many sequences times one matrix, each weight read from memory once.

Every token has the argument block of the kernel for one (`vmm`, `spvmm`, `ffn`) in a row of a table
and a share of the scratch memory. What was brought into L1 or L2 is multiplied with one token after
the other, by the same products in the same order, so that a result does not depend on other tokens.
"""

from __future__ import annotations

from sparity_edge.kernels.batch.dots import row_two_tokens
from sparity_edge.kernels.batch.few import EACH, multiply_each, multiply_two_or_more
from sparity_edge.kernels.batch.kquant_dots import kquant_rows_by_pairs
from sparity_edge.kernels.batch.kquant_tiles import kquant_rows
from sparity_edge.kernels.batch.register_tiles import BOTH_HALVES
from sparity_edge.kernels.batch.tiles import integer_rows
from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.decode.activations import BLOCK, SPLIT, split_numbers
from sparity_edge.kernels.decode.dot_arguments import DOT, product_of
from sparity_edge.kernels.decode.dots import float_dot
from sparity_edge.kernels.decode.vmm import put
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import (
    DATA,
    INPUTS,
    OUTPUTS,
    PADDED,
    ROW_BYTES,
)
from sparity_edge.kernels.simd.memory import load_i64, store, store_f32
from sparity_edge.kernels.simd.vectors import splat
from sparity_edge.kernels.sparse.active_rows import (
    VALUES,
    boundaries,
    channel,
    fours,
    prefetch_bytes,
    unsound,
)
from sparity_edge.kernels.sparse.axpy_blocks import (
    clear,
    order_sums,
)
from sparity_edge.kernels.sparse.ffn import (
    DOWN,
    FFN,
    HEADER_BYTES,
    TABLE_BYTES,
    TABLES,
    UP,
    _collect,
    _header,
    _middle,
    _values,
    add_columns,
    look_ahead,
    prefetch_columns,
    prefetch_short_rows,
)

# As `EACH`; each token has SCRATCH_SHARE bytes of scratch memory, and CHUNKS_OF_ONE are those of
# one token.
SPLIT_EACH = EACH.plus("chunks_of_one")
SHARING = EACH.plus("scratch_share")
# Activations of so many numbers stay in L1, beside rows (48 KB; 32 KB take rows from L2 instead;
# AMD EPYC, `sparity-edge bench --batch`).
IN_L1 = 16384


@Kernel(SPLIT_EACH, table=SPLIT)
def split_each(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """`split_activations` for every token, SPLIT_CHUNKS chunks each."""
    chunks = load_i64(arguments + SPLIT_EACH.chunks_of_one)
    token = chunk // chunks
    start = (chunk - token * chunks) * BLOCK
    own = load_i64(arguments + EACH.table) + token * load_i64(arguments + EACH.table_stride)
    split_numbers(own, start, start + BLOCK)


@Kernel(EACH, table=DOT)
def vmm_each_kquants(arguments: int, chunk: int, scratch: int) -> None:
    """`vmm` of int4k or int6k for every token: dot products of a row with all of them."""
    each, each_bytes = load_i64(arguments + EACH.table), load_i64(arguments + EACH.table_stride)
    matrix, tokens = load_i64(each + DOT.matrix), load_i64(arguments + EACH.tokens)
    if BOTH_HALVES and tokens * load_i64(matrix + PADDED) <= IN_L1:
        first = chunk * load_i64(each + DOT.step)
        last = min(first + load_i64(each + DOT.step), load_i64(matrix + OUTPUTS))
        kquant_rows_by_pairs(each, each_bytes, tokens, first, last)
    else:
        multiply_each(arguments, chunk, scratch, kquant_rows)


@Kernel(EACH, table=DOT)
def vmm_each_integers(arguments: int, chunk: int, scratch: int) -> None:
    """`vmm` of int8 or int4 for every token."""
    multiply_two_or_more(arguments, chunk, scratch, integer_rows, row_two_tokens)


@Kernel(EACH, table=DOT)
def vmm_each_floats(arguments: int, chunk: int, scratch: int) -> None:
    """`vmm` of f32 or bf16 for every token: a row with one after the other."""
    each, each_bytes = load_i64(arguments + EACH.table), load_i64(arguments + EACH.table_stride)
    matrix, ahead = load_i64(each + DOT.matrix), load_i64(each + DOT.ahead)
    tokens, row_bytes = load_i64(arguments + EACH.tokens), load_i64(matrix + ROW_BYTES)
    first = chunk * load_i64(each + DOT.step)
    last = min(first + load_i64(each + DOT.step), load_i64(matrix + OUTPUTS))
    for output in range(first, last):
        row = load_i64(matrix + DATA) + output * row_bytes
        for token in range(tokens):
            own = each + token * each_bytes
            put(own, output, float_dot(product_of(matrix, own), row, ahead, scratch))


@device
def _values_of_two(
    mine: int, yours: int, position: int, end: int, rows: int, later: int, scratch: int, share: int
) -> None:
    """`ffn`'s middle values of a block for two tokens, each to its share of scratch memory."""
    up, active = load_i64(load_i64(mine + FFN.bundle) + UP), load_i64(mine + FFN.active)
    place = scratch + VALUES
    for each in (place, place + 64, place + share, place + share + 64):
        store(each, splat(0.0))
    product, other = product_of(up, mine), product_of(up, yours)
    for index in range(position, end):
        row = load_i64(rows)
        a, b = row_two_tokens(product, other, row, load_i64(later) - row, scratch)
        neuron = channel(active, index)
        store_f32(place, _middle(mine, neuron, a))
        store_f32(place + share, _middle(yours, neuron, b))
        rows, later, place = rows + 8, later + 8, place + 4


@Kernel(SHARING, table=FFN)
def ffn_each(arguments: int, chunk: int, scratch: int) -> None:
    """`ffn` for every token over one list: dot products and AXPY over a block for all of them."""
    each, each_bytes = load_i64(arguments + EACH.table), load_i64(arguments + EACH.table_stride)
    tokens, share = load_i64(arguments + EACH.tokens), load_i64(arguments + SHARING.scratch_share)
    bundle, active = load_i64(each + FFN.bundle), load_i64(each + FFN.active)
    down = load_i64(bundle + DOWN)
    size = load_i64(down + INPUTS)
    if CHECKED and unsound(active, size):
        return
    columns = load_i64(down + PADDED)
    of_part = chunk * load_i64(each + FFN.part_bytes)
    for token in range(tokens):
        clear(load_i64(each + token * each_bytes + FFN.part_sums) + of_part, columns)
    parts, even = load_i64(each + FFN.parts), load_i64(each + FFN.by_channel)
    start, stop = boundaries(active, chunk, parts, size, even)
    if start >= stop:
        return
    here, there = scratch + TABLES, scratch + TABLES + TABLE_BYTES
    end = _collect(each, start, here)
    header = _header(bundle, active, start)
    prefetch_bytes(header, load_i64(bundle + HEADER_BYTES))
    prefetch_short_rows(bundle, here, 0, end - start)
    while start < stop:
        count, after, other, following = fours(end - start), end, header, here
        if end < load_i64(active):
            following, after = there, _collect(each, end, there)
            other = _header(bundle, active, end)
        others = fours(after - end)
        later, wanted, ahead = look_ahead(bundle, active, here, count, following, others)
        for token in range(0, tokens - 1, 2):
            mine = each + token * each_bytes
            of_pair = scratch + token * share
            _values_of_two(mine, mine + each_bytes, start, end, here, later, of_pair, share)
        if tokens % 2 != 0:
            token = tokens - 1
            own = scratch + token * share
            _values(each + token * each_bytes, start, end, here, later, own)
        prefetch_short_rows(bundle, following, end - start, after - end)
        prefetch_columns(bundle, here, count, ahead)
        for token in range(tokens):
            mine = scratch + token * share
            sums = load_i64(each + token * each_bytes + FFN.part_sums) + of_part
            add_columns(down, here, count, header, wanted, others, other, ahead, sums, mine)
        here, there = there, here
        start, end, header = end, after, other
    for token in range(tokens):
        order_sums(down, load_i64(each + token * each_bytes + FFN.part_sums) + of_part, columns)
