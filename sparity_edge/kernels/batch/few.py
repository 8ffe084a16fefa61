"""The loops of an output-major matrix of integers times a few tokens, over what a format adds.

A block of two rows is unpacked into L1 once for all tokens, then multiplied and scaled in the steps
that a token alone takes, so that the bits are the same (`register_tiles.py`). GROUPED rows take
a block before any takes the next one: the activations of a block of eight tokens, 8 KB, stay in L1
for all of them, however long rows are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sparity_edge.kernels.batch.register_tiles import (
    BOTH_HALVES,
    ROW_TOTALS,
    ROWS,
    SCALES,
    TOTAL,
    VECTORS,
    W_ROW,
)
from sparity_edge.kernels.decode.dot_arguments import DOT, X_BLOCK, product_of
from sparity_edge.kernels.decode.vmm import put
from sparity_edge.kernels.kernel import inlined
from sparity_edge.kernels.matrix import DATA, OUTPUTS, PADDED, ROW_BYTES
from sparity_edge.kernels.simd.memory import load_i64, prefetch_near, store
from sparity_edge.kernels.simd.vectors import splat
from sparity_edge.kernels.words import Words

MOST_TOKENS = ROW_TOTALS // TOTAL  # at once
GROUPED = 8  # rows
# The argument blocks of TOKENS tokens are rows of TABLE, TABLE_STRIDE bytes apart.
EACH = Words("table tokens table_stride")
# In scratch memory: 64 bytes for tails, two rows of scales, two of weights, and totals.
ROW_SCALES_AT = 64
WEIGHTS_AT = ROW_SCALES_AT + ROWS * SCALES
_TOTALS = WEIGHTS_AT + ROWS * W_ROW
SCRATCH_BYTES = _TOTALS + GROUPED * ROW_TOTALS


Tokens = tuple[int, int, int]  # the first argument block, bytes to the next, and their number


class Few(NamedTuple):
    """A few tokens and the matrix that they are multiplied with, read once."""

    each: int  # the argument block of the first token,
    each_bytes: int  # bytes to the next,
    tokens: int  # and how many there are
    matrix: int  # its words
    row_bytes: int
    groups: int  # of 32 inputs
    numbers_at: int  # where in a row numbers stand
    scales_at: int  # and scales
    blocks: int  # that tiles multiply, of 512 inputs
    share: int  # bytes of a row / blocks
    about: int  # bytes of the floats that go with a block of activations
    vectors: int  # of a block: VECTORS, which LLVM may not know, or it unrolls loops and spills


@inlined
def few_of(tokens: Tokens, numbers_at: int, scales_at: int, blocks: int, about: int) -> Few:
    """A few tokens and their matrix; the arguments are explained there."""
    matrix = load_i64(tokens[0] + DOT.matrix)
    row_bytes = load_i64(matrix + ROW_BYTES)
    return Few(
        tokens[0], tokens[1], tokens[2], matrix, row_bytes, load_i64(matrix + PADDED) // 32,
        numbers_at, scales_at, blocks, row_bytes // max(1, blocks), about,
        VECTORS if row_bytes > 0 else 0,
    )  # fmt: skip


@inlined
def multiply_each(arguments: int, chunk: int, scratch: int, rows: Any) -> None:
    """What `vmm_each` does.

    Args:
        arguments, chunk, scratch: of the kernel.
        rows: (tokens, first, last, scratch) gives rows first..last-1 of MOST_TOKENS or less.
    """
    each, each_bytes = load_i64(arguments + EACH.table), load_i64(arguments + EACH.table_stride)
    matrix, tokens = load_i64(each + DOT.matrix), load_i64(arguments + EACH.tokens)
    first = chunk * load_i64(each + DOT.step)
    last = min(first + load_i64(each + DOT.step), load_i64(matrix + OUTPUTS))
    for token in range(0, tokens, MOST_TOKENS):
        some = (each + token * each_bytes, each_bytes, min(MOST_TOKENS, tokens - token))
        rows(some, first, last, scratch)


@inlined
def multiply_two_or_more(
    arguments: int, chunk: int, scratch: int, rows: Any, dots_of_two: Any
) -> None:
    """`multiply_each`, but two tokens alone by `dots_of_two` where that is faster.

    It is where there are 32 registers: unpacking takes too long for two (AMD EPYC, Zen 5;
    bench/latency.py).

    Args:
        arguments, chunk, scratch, rows: as there.
        dots_of_two: `row_two_tokens` of the format.
    """
    if not BOTH_HALVES or load_i64(arguments + EACH.tokens) != 2:
        multiply_each(arguments, chunk, scratch, rows)
        return
    mine = load_i64(arguments + EACH.table)
    yours = mine + load_i64(arguments + EACH.table_stride)
    matrix, ahead = load_i64(mine + DOT.matrix), load_i64(mine + DOT.ahead)
    row_bytes = load_i64(matrix + ROW_BYTES)
    first = chunk * load_i64(mine + DOT.step)
    last = min(first + load_i64(mine + DOT.step), load_i64(matrix + OUTPUTS))
    for output in range(first, last):
        product, other = product_of(matrix, mine), product_of(matrix, yours)
        row = load_i64(matrix + DATA) + output * row_bytes
        a, b = dots_of_two(product, other, row, ahead, scratch)
        put(mine, output, a)
        put(yours, output, b)


@inlined
def grouped_rows(add: Any, finish: Any, few: Few, first: int, last: int, scratch: int) -> None:
    """The loops that all formats have, over what they have of their own.

    Args:
        add: (few, row, other, block, scratch, totals) adds a block of two rows to totals.
        finish: (few, totals, row, own, output, scratch) writes a result from them.
        few: tokens and matrix.
        first, last: rows of the matrix.
        scratch: SCRATCH_BYTES.
    """
    totals = scratch + _TOTALS
    for start in range(first, last, GROUPED):
        count = min(GROUPED, last - start)
        rows = load_i64(few.matrix + DATA) + start * few.row_bytes
        for row in range(totals, totals + count * ROW_TOTALS, ROW_TOTALS):
            for place in range(row, row + few.tokens * TOTAL, 64):
                store(place, splat(0.0))
        for block in range(few.blocks):
            for index in range(0, count, ROWS):
                row = rows + index * few.row_bytes
                other = row + few.row_bytes if index + 1 < count else row
                here = totals + index * ROW_TOTALS
                _prefetch_share(few, row, block)
                if other != row:
                    _prefetch_share(few, other, block)
                add(few, row, other, block, scratch, here)
        for token in range(few.tokens):
            own = few.each + token * few.each_bytes
            for index in range(count):
                here = totals + index * ROW_TOTALS + token * TOTAL
                finish(few, here, rows + index * few.row_bytes, own, start + index, scratch)


@inlined
def _prefetch_share(few: Few, row: int, block: int) -> None:
    """Prefetch, of the row GROUPED rows further on, a block's share of all its bytes."""
    start = row + GROUPED * few.row_bytes + block * few.share
    for place in range(start, start + few.share, 64):
        prefetch_near(place)


@inlined
def multiply_block(
    by_four: Any, by_two: Any, by_one: Any, few: Few, block: int, vectors: int, scratch: int,
    totals: int,
) -> None:  # fmt: skip
    """Add a block of two rows that has been unpacked, times all tokens.

    Args:
        by_four, by_two, by_one: intrinsics of `register_tiles`.
        few: tokens and matrix.
        block: its number.
        vectors: of the block, or of each half of it where halves have scales of their own.
        scratch: with weights and scales.
        totals: of the first row.
    """
    w, s, own, left = scratch + WEIGHTS_AT, scratch + ROW_SCALES_AT, few.each, few.tokens
    x, y = block * X_BLOCK, block * few.about
    while left >= 4:
        by_four(totals, w, vectors, s, own, few.each_bytes, x, y)
        totals, own, left = totals + 4 * TOTAL, own + 4 * few.each_bytes, left - 4
    if left >= 2:
        by_two(totals, w, vectors, s, own, few.each_bytes, x, y)
        totals, own, left = totals + 2 * TOTAL, own + 2 * few.each_bytes, left - 2
    if left != 0:
        by_one(totals, w, vectors, s, own, few.each_bytes, x, y)
