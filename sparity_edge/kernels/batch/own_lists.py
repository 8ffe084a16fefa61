"""Several tokens, each with active channels of its own, times one matrix or one bundle.

Every token's blocks are those that it has alone, summed in the order that it has alone, so that
it gets the same bits. Tokens take turns: the one whose next block stands first in memory goes
first, so that what several of them need is read from memory once and from cache afterwards.
"""

from __future__ import annotations

from sparity_edge.kernels.batch.few import EACH
from sparity_edge.kernels.batch.products import SHARING
from sparity_edge.kernels.checks import CHECKED
from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import INPUTS, PADDED
from sparity_edge.kernels.simd.memory import load_i64, store_i64
from sparity_edge.kernels.sparse.active_rows import (
    BLOCK_BYTES,
    HEADER,
    ROWS,
    boundaries,
    boundary,
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
    SCRATCH_BYTES,
    TABLE_BYTES,
    TABLES,
    _collect,
    _header,
    _values,
    add_columns,
    look_ahead,
    prefetch_columns,
    prefetch_short_rows,
    prefetch_up_rows,
)
from sparity_edge.kernels.sparse.spvmm import SPVMM, prepare
from sparity_edge.kernels.sparse.spvmm import TABLES as SPVMM_TABLES

# Where a token is, in its share of the scratch memory: the address of its next block (DONE: there
# is none), then of products the tables of that block, of bundles positions on the list and a table.
NEXT, ROWS_AT, DIGITS_AT, ENTRY_AT = 0, 8, 16, 24
START, STOP, END, HERE = 8, 16, 24, 32
DONE = 1 << 62
OF_BUNDLE = SCRATCH_BYTES  # where that stands for bundles: in front are the tables of `ffn`
OWN_BYTES = SCRATCH_BYTES + 64


@device
def _next_token(places: int, share: int, tokens: int) -> int:
    """The token whose next block stands first in memory; `tokens`: none has one."""
    found, least = tokens, DONE
    for token in range(tokens):
        place = load_i64(places + token * share + NEXT)
        if place < least:
            found, least = token, place
    return found


# --- products -----------------------------------------------------------------------------------


@device
def _sums_of(own: int, part: int, first: int) -> int:
    """The address of the sums of a part for one token, from column `first` on (`spvmm`)."""
    of_part = part * load_i64(own + SPVMM.part_bytes)
    return load_i64(own + SPVMM.part_sums) + of_part + 4 * first


@device
def _stand_at(mine: int, rows: int, digits: int, entry: int) -> None:
    """Have the block at these tables be a token's next one."""
    store_i64(mine + ROWS_AT, rows)
    store_i64(mine + DIGITS_AT, digits)
    store_i64(mine + ENTRY_AT, entry)
    store_i64(mine + NEXT, load_i64(entry + HEADER) if load_i64(entry + ROWS) != 0 else DONE)


@Kernel(SHARING, table=SPVMM)
def spvmm_each(arguments: int, chunk: int, scratch: int) -> None:
    """`spvmm` for every token, each over a list of its own or all over one."""
    each, each_bytes = load_i64(arguments + EACH.table), load_i64(arguments + EACH.table_stride)
    tokens, share = load_i64(arguments + EACH.tokens), load_i64(arguments + SHARING.scratch_share)
    matrix = load_i64(each + SPVMM.matrix)
    parts, panels = load_i64(each + SPVMM.parts), load_i64(each + SPVMM.panels)
    part = chunk // panels
    columns = load_i64(each + SPVMM.panel_columns)
    first = (chunk - part * panels) * columns
    columns = min(columns, load_i64(matrix + PADDED) - first)
    for token in range(tokens):
        own, mine = each + token * each_bytes, scratch + token * share
        active = load_i64(own + SPVMM.active)
        if CHECKED and unsound(active, load_i64(matrix + INPUTS)):
            return
        clear(_sums_of(own, part, first), columns)
        start, stop = boundary(active, part, parts), boundary(active, part + 1, parts)
        rows, digits = mine + SPVMM_TABLES, mine + load_i64(own + SPVMM.digits_at)
        entry = digits + load_i64(own + SPVMM.blocks_after)
        store_i64(entry + ROWS, 0)
        if start < stop:
            prepare(own, start, stop, rows, digits, entry, first)
        _stand_at(mine, rows, digits, entry)
    nbytes, step = bytes_of(matrix, columns), digit_bytes(matrix)
    ahead = bytes_ahead(load_i64(each + SPVMM.active), load_i64(matrix + INPUTS), nbytes)
    token = _next_token(scratch, share, tokens)
    while token < tokens:
        sums, mine = _sums_of(each + token * each_bytes, part, first), scratch + token * share
        rows, digits = load_i64(mine + ROWS_AT), load_i64(mine + DIGITS_AT)
        entry = load_i64(mine + ENTRY_AT)
        count = load_i64(entry + ROWS)
        following = rows + 8 * count
        add_block(matrix, entry, rows, following, ahead, digits, first, nbytes, sums)
        _stand_at(mine, following, digits + step * count // 4, entry + BLOCK_BYTES)
        token = _next_token(scratch, share, tokens)
    for token in range(tokens):
        order_sums(matrix, _sums_of(each + token * each_bytes, part, first), columns)


# --- bundles ------------------------------------------------------------------------------------


@device
def _begin(own: int, chunk: int, scratch: int) -> None:
    """Have a token stand at the first block of its part, prefetched as `ffn` does it."""
    bundle, active, mine = load_i64(own + FFN.bundle), load_i64(own + FFN.active), scratch
    mine += OF_BUNDLE
    size, parts = load_i64(load_i64(bundle + DOWN) + INPUTS), load_i64(own + FFN.parts)
    start, stop = boundaries(active, chunk, parts, size, load_i64(own + FFN.by_channel))
    store_i64(mine + NEXT, DONE)
    if start < stop:
        here = scratch + TABLES
        end, header = _collect(own, start, here), _header(bundle, active, start)
        prefetch_bytes(header, load_i64(bundle + HEADER_BYTES))
        prefetch_short_rows(bundle, here, 0, end - start)
        store_i64(mine + NEXT, header)
        store_i64(mine + START, start)
        store_i64(mine + STOP, stop)
        store_i64(mine + END, end)
        store_i64(mine + HERE, here)


@device
def _add_block_of(own: int, sums: int, scratch: int) -> None:
    """What `ffn` does with the block at which a token stands; it stands at the next one then."""
    bundle, active, mine = load_i64(own + FFN.bundle), load_i64(own + FFN.active), scratch
    mine += OF_BUNDLE
    start, end = load_i64(mine + START), load_i64(mine + END)
    header, here = load_i64(mine + NEXT), load_i64(mine + HERE)
    there = 2 * (scratch + TABLES) + TABLE_BYTES - here
    count, after, other, following = fours(end - start), end, header, here
    if end < load_i64(active):
        following, after = there, _collect(own, end, there)
        other = _header(bundle, active, end)
    others = fours(after - end)
    later, wanted, ahead = look_ahead(bundle, active, here, count, following, others)
    _values(own, start, end, here, later, scratch)
    prefetch_short_rows(bundle, following, end - start, after - end)
    prefetch_columns(bundle, here, count, ahead)
    down = load_i64(bundle + DOWN)
    add_columns(down, here, count, header, wanted, others, other, ahead, sums, scratch)
    prefetch_up_rows(bundle, following, after - end)
    store_i64(mine + NEXT, other if end < load_i64(mine + STOP) else DONE)
    store_i64(mine + START, end)
    store_i64(mine + END, after)
    store_i64(mine + HERE, there)


@Kernel(SHARING, table=FFN)
def ffn_own(arguments: int, chunk: int, scratch: int) -> None:
    """`ffn` for every token, each over a list of its own."""
    each, each_bytes = load_i64(arguments + EACH.table), load_i64(arguments + EACH.table_stride)
    tokens, share = load_i64(arguments + EACH.tokens), load_i64(arguments + SHARING.scratch_share)
    down = load_i64(load_i64(each + FFN.bundle) + DOWN)
    columns, of_part = load_i64(down + PADDED), chunk * load_i64(each + FFN.part_bytes)
    for token in range(tokens):
        own = each + token * each_bytes
        if CHECKED and unsound(load_i64(own + FFN.active), load_i64(down + INPUTS)):
            return
        clear(load_i64(own + FFN.part_sums) + of_part, columns)
        _begin(own, chunk, scratch + token * share)
    token = _next_token(scratch + OF_BUNDLE, share, tokens)
    while token < tokens:
        own = each + token * each_bytes
        sums = load_i64(own + FFN.part_sums) + of_part
        _add_block_of(own, sums, scratch + token * share)
        token = _next_token(scratch + OF_BUNDLE, share, tokens)
    for token in range(tokens):
        order_sums(down, load_i64(each + token * each_bytes + FFN.part_sums) + of_part, columns)
