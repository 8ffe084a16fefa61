"""Kernels of iq4 and iq4k: dense products, embedding, prompts, batches."""

from __future__ import annotations

from sparity_edge.kernels.batch.few import EACH, multiply_two_or_more
from sparity_edge.kernels.decode.dot_arguments import DOT
from sparity_edge.kernels.decode.unpack import EMBED, embed_row
from sparity_edge.kernels.decode.vmm import multiply_rows
from sparity_edge.kernels.kept.iq4s_dots import (
    following_iq4_dot,
    following_iq4k_dot,
    iq4s_dots_of_two,
)
from sparity_edge.kernels.kept.iq4s_rows import prefetch_iq4s, unpack_iq4s, word_panel_of_iq4s
from sparity_edge.kernels.kept.iq4s_tiles import iq4s_rows
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.prefill.blocks import GEMM
from sparity_edge.kernels.prefill.gemm import (
    multiply_floats_of,
    multiply_with_minimum,
    multiply_words_of,
)


@Kernel(DOT)
def vmm_iq4(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x, W output-major in iq4."""
    multiply_rows(arguments, chunk, scratch, following_iq4_dot)


@Kernel(DOT)
def vmm_iq4k(arguments: int, chunk: int, scratch: int) -> None:
    """STEP outputs of W x, W output-major in iq4k."""
    multiply_rows(arguments, chunk, scratch, following_iq4k_dot)


@Kernel(EMBED)
def embed_iq4s(arguments: int, chunk: int, scratch: int) -> None:
    """`embed` of iq4 and iq4k."""
    embed_row(arguments, chunk, scratch, unpack_iq4s)


@Kernel(EACH, table=DOT)
def vmm_each_iq4s(arguments: int, chunk: int, scratch: int) -> None:
    """`vmm_each` of iq4 and iq4k."""
    multiply_two_or_more(arguments, chunk, scratch, iq4s_rows, iq4s_dots_of_two)


@Kernel(GEMM)
def gemm_words_iq4s(arguments: int, chunk: int, scratch: int) -> None:
    """`gemm_words` of iq4 and iq4k."""
    multiply_words_of(
        arguments, chunk, scratch, word_panel_of_iq4s, prefetch_iq4s, False,
        multiply_with_minimum,
    )  # fmt: skip


@Kernel(GEMM)
def gemm_floats_iq4s(arguments: int, chunk: int, scratch: int) -> None:
    """`gemm_floats` of iq4 and iq4k."""
    multiply_floats_of(arguments, chunk, scratch, unpack_iq4s)
