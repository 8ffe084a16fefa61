"""Several tokens of as many sequences times one matrix, each weight read from memory once.

Every token has the argument block of the kernel for one (`vmm`, `spvmm`, `ffn`) in a row of a table
and a share of the scratch memory. What was brought into L1 or L2 is multiplied with one token after
the other, by the same products in the same order, so that a result does not depend on other tokens.
"""

from __future__ import annotations

from typing import Any

from sparity_edge.kernels.batch.dots import row_two_tokens
from sparity_edge.kernels.batch.kquant_dots import kquant_rows_by_pairs
from sparity_edge.kernels.batch.register_tiles import BOTH_HALVES
from sparity_edge.kernels.batch.tiles import rows_times_tokens
from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.decode.activations import BLOCK, SPLIT, split_numbers
from sparity_edge.kernels.decode.dot_arguments import DOT, product_of
from sparity_edge.kernels.decode.dots import row_dot
from sparity_edge.kernels.decode.vmm import put
from sparity_edge.kernels.kernel import Kernel, device, inlined
from sparity_edge.kernels.matrix import (
    DATA,
    DTYPE,
    GROUP,
    INPUTS,
    INT4K,
    OUTPUTS,
    PADDED,
    ROW_BYTES,
)
from sparity_edge.kernels.simd.memory import load_i64, store, store_f32
from sparity_edge.kernels.simd.vectors import splat
from sparity_edge.kernels.sparse.active_rows import (
    BLOCK_BYTES,
    ROWS,
    VALUES,
    boundary,
    channel,
    digit_bytes,
    fours,
    prefetch_bytes,
    unsound,
)
from sparity_edge.kernels.sparse.axpy_blocks import (
    add_block,
    bytes_ahead,
    bytes_of,
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
from sparity_edge.kernels.sparse.spvmm import SPVMM, prepare
from sparity_edge.kernels.sparse.spvmm import TABLES as SPVMM_TABLES
from sparity_edge.kernels.words import Words

# The argument blocks of TOKENS tokens are rows of TABLE, TABLE_STRIDE bytes apart. Each has
# SCRATCH_SHARE bytes of scratch memory; CHUNKS_OF_ONE are those of one token.
EACH = Words("table tokens table_stride")
SPLIT_EACH = EACH.plus("chunks_of_one")
SHARING = EACH.plus("scratch_share")
# Activations of so many numbers stay in L1, beside rows (48 KB; 32 KB take rows from L2 instead;
# AMD EPYC, `sparity-edge bench --batch`).
IN_L1 = 16384
# Rows that wait in L2 for the next token; 4 give 6 % less (AMD EPYC; `sparity-edge bench --batch`).
GROUPED = 6


@Kernel(SPLIT_EACH, table=SPLIT)
def split_each(arguments: int, chunk: int, scratch: int) -> None:  # noqa: ARG001
    """`split_activations` for every token, SPLIT_CHUNKS chunks each."""
    chunks = load_i64(arguments + SPLIT_EACH.chunks_of_one)
    token = chunk // chunks
    start = (chunk - token * chunks) * BLOCK
    own = load_i64(arguments + EACH.table) + token * load_i64(arguments + EACH.table_stride)
    split_numbers(own, start, start + BLOCK)


@inlined
def _by_tokens(arguments: int, first: int, last: int, scratch: int, dot: Any) -> None:
    """Outputs first..last-1, GROUPED rows with one token after the other.

    Two tokens at a time evict each other's activations from L1 where those are long: rows of 8960
    in int4k were read at 27 GB/s (two threads of an AMD EPYC), and are at 49 so.
    """
    each, each_bytes = load_i64(arguments + EACH.table), load_i64(arguments + EACH.table_stride)
    matrix, tokens = load_i64(each + DOT.matrix), load_i64(arguments + EACH.tokens)
    row_bytes = load_i64(matrix + ROW_BYTES)
    share = row_bytes // tokens  # every product prefetches its share of the next rows
    for output in range(first, last, GROUPED):
        end = min(output + GROUPED, last)
        start = load_i64(matrix + DATA) + output * row_bytes
        wanted = start + GROUPED * row_bytes
        for token in range(tokens):
            own, row = each + token * each_bytes, start
            product = product_of(matrix, own)
            for index in range(output, end):
                put(own, index, dot(product, row, wanted - row, scratch))
                row, wanted = row + row_bytes, wanted + share


@inlined
def multiply_each(arguments: int, chunk: int, scratch: int, dot: Any, dots_of_two: Any) -> None:
    """What `vmm_each` does, by functions that multiply as `row_dot` and `row_two_tokens` do."""
    each, each_bytes = load_i64(arguments + EACH.table), load_i64(arguments + EACH.table_stride)
    matrix, ahead = load_i64(each + DOT.matrix), load_i64(each + DOT.ahead)
    tokens = load_i64(arguments + EACH.tokens)
    row_bytes = load_i64(matrix + ROW_BYTES)
    first = chunk * load_i64(each + DOT.step)
    last = min(first + load_i64(each + DOT.step), load_i64(matrix + OUTPUTS))
    if load_i64(matrix + GROUP) != 0 and tokens * load_i64(matrix + PADDED) > IN_L1:
        _by_tokens(arguments, first, last, scratch, dot)
        return
    for output in range(first, last):
        row = load_i64(matrix + DATA) + output * row_bytes
        for token in range(0, tokens - 1, 2):
            mine = each + token * each_bytes
            yours = mine + each_bytes
            product, other = product_of(matrix, mine), product_of(matrix, yours)
            a, b = dots_of_two(product, other, row, ahead, scratch)
            put(mine, output, a)
            put(yours, output, b)
        if tokens % 2 != 0:
            mine = each + (tokens - 1) * each_bytes
            product = product_of(matrix, mine)
            put(mine, output, dot(product, row, ahead, scratch))


@inlined
def _by_pairs(matrix: int, tokens: int) -> bool:
    """Whether two tokens at a time are faster than `rows_times_tokens`, or all there is.

    With 32 registers, two rows of K-quants with two tokens need no detour by L1 as long as
    activations stay there; with 16, two tokens alone are not worth it (AMD EPYC, Zen 5;
    bench/latency.py).
    """
    if load_i64(matrix + GROUP) == 0:
        return True
    if load_i64(matrix + DTYPE) >= INT4K:
        worth = BOTH_HALVES or tokens == 2
        return worth and tokens * load_i64(matrix + PADDED) <= IN_L1
    return BOTH_HALVES and tokens == 2


@Kernel(EACH, table=DOT)
def vmm_each(arguments: int, chunk: int, scratch: int) -> None:
    """`vmm` for every token: dot products of a row with all of them."""
    each, each_bytes = load_i64(arguments + EACH.table), load_i64(arguments + EACH.table_stride)
    matrix, step = load_i64(each + DOT.matrix), load_i64(each + DOT.step)
    tokens, first = load_i64(arguments + EACH.tokens), chunk * step
    last = min(first + step, load_i64(matrix + OUTPUTS))
    if not _by_pairs(matrix, tokens):
        rows_times_tokens(each, each_bytes, tokens, first, last, scratch)
    elif load_i64(matrix + DTYPE) >= INT4K:
        kquant_rows_by_pairs(each, each_bytes, tokens, first, last)
    else:
        multiply_each(arguments, chunk, scratch, row_dot, row_two_tokens)


@device
def _sums_of(own: int, part: int, first: int) -> int:
    """The address of the sums of a part for one token, from column `first` on (`spvmm`)."""
    of_part = part * load_i64(own + SPVMM.part_bytes)
    return load_i64(own + SPVMM.part_sums) + of_part + 4 * first


@Kernel(SHARING, table=SPVMM)
def spvmm_each(arguments: int, chunk: int, scratch: int) -> None:
    """`spvmm` for every token: AXPY over the rows of a block for all of them."""
    each, each_bytes = load_i64(arguments + EACH.table), load_i64(arguments + EACH.table_stride)
    tokens, share = load_i64(arguments + EACH.tokens), load_i64(arguments + SHARING.scratch_share)
    matrix, active = load_i64(each + SPVMM.matrix), load_i64(each + SPVMM.active)
    if CHECKED and unsound(active, load_i64(matrix + INPUTS)):
        return
    parts, panels = load_i64(each + SPVMM.parts), load_i64(each + SPVMM.panels)
    part = chunk // panels
    columns = load_i64(each + SPVMM.panel_columns)
    first = (chunk - part * panels) * columns
    columns = min(columns, load_i64(matrix + PADDED) - first)
    start, stop = boundary(active, part, parts), boundary(active, part + 1, parts)
    rows, digits = scratch + SPVMM_TABLES, scratch + load_i64(each + SPVMM.digits_at)
    block, step, blocks = digits + load_i64(each + SPVMM.blocks_after), digit_bytes(matrix), 0
    nbytes = bytes_of(matrix, columns)
    ahead = bytes_ahead(active, load_i64(matrix + INPUTS), nbytes)
    for token in range(tokens):
        own, mine = each + token * each_bytes, token * share
        clear(_sums_of(own, part, first), columns)
        if start < stop:
            blocks = prepare(
                own, start, stop, rows + mine, digits + mine, block + mine, first, columns, ahead
            )
    for _ in range(blocks):
        count = load_i64(block + ROWS)
        for token in range(tokens):
            mine, sums = token * share, _sums_of(each + token * each_bytes, part, first)
            own, following = rows + mine, rows + mine + 8 * count
            place, x = block + mine, digits + mine
            add_block(matrix, place, own, following, ahead, x, first, nbytes, sums)
        rows, digits, block = rows + 8 * count, digits + step * count // 4, block + BLOCK_BYTES
    for token in range(tokens):
        order_sums(matrix, _sums_of(each + token * each_bytes, part, first), columns)


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
    """`ffn` for every token: dot products and AXPY over the rows of a block for all of them."""
    each, each_bytes = load_i64(arguments + EACH.table), load_i64(arguments + EACH.table_stride)
    tokens, share = load_i64(arguments + EACH.tokens), load_i64(arguments + SHARING.scratch_share)
    bundle, active = load_i64(each + FFN.bundle), load_i64(each + FFN.active)
    down, parts = load_i64(bundle + DOWN), load_i64(each + FFN.parts)
    if CHECKED and unsound(active, load_i64(down + INPUTS)):
        return
    columns = load_i64(down + PADDED)
    of_part = chunk * load_i64(each + FFN.part_bytes)
    for token in range(tokens):
        clear(load_i64(each + token * each_bytes + FFN.part_sums) + of_part, columns)
    start, stop = boundary(active, chunk, parts), boundary(active, chunk + 1, parts)
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
