"""Kernels of five-bit weights, int5 and int5k: dense products, embedding, prompts, batches."""

from __future__ import annotations

from sparity_edge.kernels.batch.few import EACH, multiply_two_or_more
from sparity_edge.kernels.decode.dot_arguments import DOT
from sparity_edge.kernels.decode.unpack import EMBED, embed_row
from sparity_edge.kernels.decode.vmm import multiply_rows
from sparity_edge.kernels.kept.fives_dots import (
    fives_dots_of_two,
    following_int5_dot,
    following_int5k_dot,
)
from sparity_edge.kernels.kept.fives_rows import prefetch_fives, unpack_fives, word_panel_of_fives
from sparity_edge.kernels.kept.fives_tiles import fives_rows
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.prefill.blocks import GEMM
from sparity_edge.kernels.prefill.gemm import (
    multiply_floats_of,
    multiply_with_minimum,
    multiply_words_of,
)


@Kernel(DOT)
def vmm_int5(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x, W output-major in int5."""
    multiply_rows(arguments, chunk, scratch, following_int5_dot)


@Kernel(DOT)
def vmm_int5k(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x, W output-major in int5k."""
    multiply_rows(arguments, chunk, scratch, following_int5k_dot)


@Kernel(EMBED)
def embed_fives(arguments: int, chunk: int, scratch: int) -> None:
    """`embed` of five bits."""
    embed_row(arguments, chunk, scratch, unpack_fives)


@Kernel(EACH, table=DOT)
def vmm_each_fives(arguments: int, chunk: int, scratch: int) -> None:
    """`vmm_each` of five bits."""
    multiply_two_or_more(arguments, chunk, scratch, fives_rows, fives_dots_of_two)


@Kernel(GEMM)
def gemm_words_fives(arguments: int, chunk: int, scratch: int) -> None:
    """`gemm_words` of five bits."""
    multiply_words_of(
        arguments, chunk, scratch, word_panel_of_fives, prefetch_fives, False,
        multiply_with_minimum,
    )  # fmt: skip


@Kernel(GEMM)
def gemm_floats_fives(arguments: int, chunk: int, scratch: int) -> None:
    """`gemm_floats` of five bits."""
    multiply_floats_of(arguments, chunk, scratch, unpack_fives)
