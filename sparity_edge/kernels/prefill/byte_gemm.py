"""Matrix product for many tokens from bytes: Y = X W^T on CPUs with AVX2 and no more.

`gemm` goes through the matrix and unpacks panels of 16-bit integers; here they become bytes, which
serve all tokens and which `byte_tiles` multiplies. Activations are bytes, too (`packing`).
Weights of more than six bits stay with `gemm_words`: sums of their products do not fit 16 bits.
"""

from __future__ import annotations

from sparity_edge.kernels.kernel import Kernel, device
from sparity_edge.kernels.matrix import DTYPE, INT6K, ZERO
from sparity_edge.kernels.prefill.blocks import (
    GEMM,
    prefetch_kquant_rows,
    prefetch_words,
    unpack_kquants,
    unpack_words,
)
from sparity_edge.kernels.prefill.byte_tiles import (
    B_SCALES,
    B_UNIT,
    narrow_weights,
    step_bytes_by_halves_less_32,
    step_bytes_less_8,
    step_bytes_with_minimum,
)
from sparity_edge.kernels.prefill.gemm import multiply_units_of, multiplying
from sparity_edge.kernels.simd.int16_tiles import W_UNIT
from sparity_edge.kernels.simd.memory import load_i64

# Fewer tokens keep 16 bits: they take little time, and bytes cost most at the first positions of a
# text (KL 0.0017 over 64, 0.0012 over 1024; SmolLM2, bench/limits/rounded.py).
LEAST_TOKENS = 64
_SIXES_ZERO = 32  # what numbers of int6k are stored with


@device
def _narrow(matrix: int, panel: int, units: int, halves: bool) -> None:
    zero = _SIXES_ZERO if halves else load_i64(matrix + ZERO)
    for unit in range(units):
        narrow_weights(panel + W_UNIT * unit, zero)


_multiply_less_8, _multiply_with_minimum, _multiply_by_halves_less_32 = (
    multiplying(step, B_UNIT, B_SCALES)
    for step in (step_bytes_less_8, step_bytes_with_minimum, step_bytes_by_halves_less_32)
)


@Kernel(GEMM)
def gemm_bytes(arguments: int, chunk: int, scratch: int) -> None:
    """PANELS times PANEL outputs of all tokens from bytes; `pack_bytes` gives activations."""
    multiply_units_of(
        arguments, chunk, scratch, unpack_words, prefetch_words, _narrow, False,
        _multiply_less_8, _multiply_less_8, _multiply_with_minimum, B_UNIT,
    )  # fmt: skip


@Kernel(GEMM)
def gemm_bytes_kquants(arguments: int, chunk: int, scratch: int) -> None:
    """`gemm_bytes` of int4k and int6k."""
    halves = load_i64(load_i64(arguments + GEMM.matrix) + DTYPE) == INT6K
    multiply_units_of(
        arguments, chunk, scratch, unpack_kquants, prefetch_kquant_rows, _narrow, halves,
        _multiply_by_halves_less_32, _multiply_by_halves_less_32, _multiply_with_minimum, B_UNIT,
    )  # fmt: skip


KERNELS = {"int4": gemm_bytes, "int4k": gemm_bytes_kquants, "int6k": gemm_bytes_kquants}
