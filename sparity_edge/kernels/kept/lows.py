"""Kernels of two and three bits, int2k and int3k: dense products, embedding, prompts, batches."""

from __future__ import annotations

from sparity_edge.kernels.batch.few import EACH, multiply_two_or_more
from sparity_edge.kernels.decode.dot_arguments import DOT
from sparity_edge.kernels.decode.unpack import EMBED, embed_row
from sparity_edge.kernels.decode.vmm import multiply_rows
from sparity_edge.kernels.kept.lows_dots import (
    following_int2k_dot,
    following_int3k_dot,
    lows_dots_of_two,
)
from sparity_edge.kernels.kept.lows_rows import prefetch_lows, unpack_lows, word_panel_of_lows
from sparity_edge.kernels.kept.lows_tiles import lows_rows
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.prefill.blocks import GEMM
from sparity_edge.kernels.prefill.gemm import (
    multiply_by_halves_with_minima,
    multiply_floats_of,
    multiply_words_of,
)


@Kernel(DOT)
def vmm_int2k(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x, W output-major in int2k."""
    multiply_rows(arguments, chunk, scratch, following_int2k_dot)


@Kernel(DOT)
def vmm_int3k(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x, W output-major in int3k."""
    multiply_rows(arguments, chunk, scratch, following_int3k_dot)


@Kernel(EMBED)
def embed_lows(arguments: int, chunk: int, scratch: int) -> None:
    """`embed` of two and three bits."""
    embed_row(arguments, chunk, scratch, unpack_lows)


@Kernel(EACH, table=DOT)
def vmm_each_lows(arguments: int, chunk: int, scratch: int) -> None:
    """`vmm_each` of two and three bits."""
    multiply_two_or_more(arguments, chunk, scratch, lows_rows, lows_dots_of_two)


@Kernel(GEMM)
def gemm_words_lows(arguments: int, chunk: int, scratch: int) -> None:
    """`gemm_words` of two and three bits."""
    multiply_words_of(
        arguments, chunk, scratch, word_panel_of_lows, prefetch_lows, True,
        multiply_by_halves_with_minima,
    )  # fmt: skip


@Kernel(GEMM)
def gemm_floats_lows(arguments: int, chunk: int, scratch: int) -> None:
    """`gemm_floats` of two and three bits."""
    multiply_floats_of(arguments, chunk, scratch, unpack_lows)
