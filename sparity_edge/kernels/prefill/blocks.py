"""Blocks of weights as a product for many tokens asks for them: unpacked, and prefetched before.

Declares the argument block of those products. `panels` and `kquant_panels` know the bytes.
"""

from __future__ import annotations

from sparity_edge.kernels.kernel import device
from sparity_edge.kernels.prefill.kquant_panels import (
    prefetch_kquants,
    word_panel_of_kquant_columns,
    word_panel_of_kquants,
)
from sparity_edge.kernels.prefill.packing import WORD_BLOCK
from sparity_edge.kernels.prefill.panels import (
    prefetch_word_rows,
    word_panel_of_columns,
    word_panel_of_rows,
)
from sparity_edge.kernels.simd.memory import load_i64
from sparity_edge.kernels.words import Words

# DEPTH counts inputs (floats) or units (words).
GEMM = Words(
    "matrix tiles tile_bytes tokens bias out out_stride accumulate depth input_major panels"
)


@device
def unpack_words(arguments: int, first: int, start: int, stop: int, panel: int) -> None:
    """A block of a panel of int8 or int4 as `int16_tiles` has them."""
    matrix = load_i64(arguments + GEMM.matrix)
    if load_i64(arguments + GEMM.input_major) != 0:
        word_panel_of_columns(matrix, first, start, stop, panel)
    else:
        word_panel_of_rows(matrix, first, start, stop, panel)


@device
def prefetch_words(arguments: int, first: int, start: int) -> None:
    """Prefetch what `unpack_words` will read."""
    matrix, depth = load_i64(arguments + GEMM.matrix), load_i64(arguments + GEMM.depth)
    if load_i64(arguments + GEMM.input_major) == 0:
        prefetch_word_rows(matrix, first, start, min(start + WORD_BLOCK, depth))


@device
def unpack_kquants(arguments: int, first: int, start: int, stop: int, panel: int) -> None:
    """`unpack_words` of int4k or int6k."""
    matrix = load_i64(arguments + GEMM.matrix)
    if load_i64(arguments + GEMM.input_major) != 0:
        word_panel_of_kquant_columns(matrix, first, start, stop, panel)
    else:
        word_panel_of_kquants(matrix, first, start // WORD_BLOCK, panel)


@device
def prefetch_kquant_rows(arguments: int, first: int, start: int) -> None:
    """Prefetch what `unpack_kquants` will read."""
    if load_i64(arguments + GEMM.input_major) == 0:
        prefetch_kquants(load_i64(arguments + GEMM.matrix), first, start // WORD_BLOCK)
