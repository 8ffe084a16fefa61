"""The loops of an output-major matrix of integers times a few tokens, over what a format adds.

A block of two rows is unpacked into L1 once for all tokens, then multiplied and scaled in the steps
that a token alone takes, so that the bits are the same (`register_tiles.py`). GROUPED rows take
a block before any takes the next one: the activations of a block of eight tokens, 8 KB, stay in L1
for all of them, however long rows are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sparity_edge.kernels.batch.register_tiles import ROW_TOTALS, ROWS, SCALES, TOTAL, W_ROW
from sparity_edge.kernels.decode.dot_arguments import DOT
from sparity_edge.kernels.kernel import inlined
from sparity_edge.kernels.matrix import DATA
from sparity_edge.kernels.simd.memory import load_i64, prefetch_near, store
from sparity_edge.kernels.simd.vectors import splat

MOST_TOKENS = ROW_TOTALS // TOTAL  # at once
GROUPED = 8  # rows
# In scratch memory: 64 bytes for tails, two rows of scales, two of weights, and totals.
ROW_SCALES_AT = 64
WEIGHTS_AT = ROW_SCALES_AT + ROWS * SCALES
_TOTALS = WEIGHTS_AT + ROWS * W_ROW
SCRATCH_BYTES = _TOTALS + GROUPED * ROW_TOTALS


class Few(NamedTuple):
    """A few tokens and the matrix that they are multiplied with, read once."""

    each: int  # the argument block of the first token,
    each_bytes: int  # bytes to the next,
    tokens: int  # and how many there are
    matrix: int  # its words
    row_bytes: int
    share: int  # bytes of a row / blocks
    whole: int  # blocks of 512 inputs
    half: bool  # K-quants: whether half a block follows
    vectors: int  # of a block: VECTORS, which LLVM may not know, or it unrolls loops and spills
    numbers_at: int  # where in a row numbers stand
    scales_at: int  # and scales
    minima_at: int  # bytes from there to the minima; 0 where there are none
    group: int  # inputs that share a scale


@inlined
def grouped_rows(add: Any, finish: Any, few: Few, first: int, last: int, scratch: int) -> None:
    """The loops that all formats have, over what they have of their own.

    Args:
        add: (few, row, other, block, scratch, totals) adds a block of two rows to totals.
        finish: (totals, row, own, output, scratch) writes a result from them.
        few: tokens and matrix.
        first, last: rows of the matrix.
        scratch: SCRATCH_BYTES.
    """
    totals, blocks = scratch + _TOTALS, few.whole + (1 if few.half else 0)
    for start in range(first, last, GROUPED):
        count = min(GROUPED, last - start)
        rows = load_i64(few.matrix + DATA) + start * few.row_bytes
        for place in range(totals, totals + count * ROW_TOTALS, 64):
            store(place, splat(0.0))
        for block in range(blocks):
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
                finish(here, rows + index * few.row_bytes, own, start + index, scratch)


@inlined
def _prefetch_share(few: Few, row: int, block: int) -> None:
    """Prefetch, of the row GROUPED rows further on, a block's share of all its bytes."""
    start = row + GROUPED * few.row_bytes + block * few.share
    for place in range(start, start + few.share, 64):
        prefetch_near(place)


@inlined
def digits_of(few: Few, token: int, skip: int) -> int:
    """The address `skip` bytes into the digits of a token."""
    return load_i64(few.each + token * few.each_bytes + DOT.digits) + skip


@inlined
def scales_of(few: Few, token: int, skip: int) -> int:
    """The address `skip` bytes into the scales (of K-quants all floats) of a token."""
    return load_i64(few.each + token * few.each_bytes + DOT.scales) + skip


@inlined
def sums_of(few: Few, token: int, skip: int) -> int:
    """The address `skip` bytes into the sums of a token."""
    return load_i64(few.each + token * few.each_bytes + DOT.sums) + skip
