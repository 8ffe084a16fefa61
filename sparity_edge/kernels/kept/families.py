"""Families: kernels by the number formats that they read, so that a start compiles what it needs.

The first family is that of floats, grouped integers and the usual K-quants, whose matrices may be
input-major; others are output-major alone, and compiled only for models that have their formats.
Knows nothing of how an operation is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sparity_edge.kernels.batch import products
from sparity_edge.kernels.decode import unpack, vmm
from sparity_edge.kernels.kept import fives, iq4s, lows
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.prefill import byte_gemm, gemm, packing
from sparity_edge.kernels.simd.cpu import rounds_to_bytes
from sparity_edge.kernels.simd.int16_tiles import has_word_dot
from sparity_edge.packed.layout import Layout


@dataclass(frozen=True)
class Family:
    """Kernels of some number formats.

    Args:
        dense: by format, products of one token.
        embed: rows of an embedding.
        each: by format, products of several tokens.
        words: by format, products of a prompt by integers.
        floats: products of a prompt as float32.
    """

    dense: Mapping[str, Kernel]
    embed: Kernel
    each: Mapping[str, Kernel]
    words: Mapping[str, Kernel]
    floats: Kernel

    @property
    def formats(self) -> tuple[str, ...]:
        """Number formats of output-major matrices that its kernels read."""
        return tuple(self.dense)


FIRST = Family(
    {
        "f32": vmm.vmm_floats,
        "bf16": vmm.vmm_floats,
        "int8": vmm.vmm_int8,
        "int4": vmm.vmm_int4,
        "int4k": vmm.vmm_kquants,
        "int6k": vmm.vmm_kquants,
    },
    unpack.embed,
    {
        "f32": products.vmm_each_floats,
        "bf16": products.vmm_each_floats,
        "int8": products.vmm_each_integers,
        "int4": products.vmm_each_integers,
        "int4k": products.vmm_each_kquants,
        "int6k": products.vmm_each_kquants,
    },
    {
        "int8": gemm.gemm_words,
        "int4": gemm.gemm_words,
        "int4k": gemm.gemm_words_kquants,
        "int6k": gemm.gemm_words_kquants,
    },
    gemm.gemm_floats,
)
FIVES = Family(
    {"int5": fives.vmm_int5, "int5k": fives.vmm_int5k},
    fives.embed_fives,
    dict.fromkeys(("int5", "int5k"), fives.vmm_each_fives),
    dict.fromkeys(("int5", "int5k"), fives.gemm_words_fives),
    fives.gemm_floats_fives,
)
IQ4S = Family(
    {"iq4": iq4s.vmm_iq4, "iq4k": iq4s.vmm_iq4k},
    iq4s.embed_iq4s,
    dict.fromkeys(("iq4", "iq4k"), iq4s.vmm_each_iq4s),
    dict.fromkeys(("iq4", "iq4k"), iq4s.gemm_words_iq4s),
    iq4s.gemm_floats_iq4s,
)
LOWS = Family(
    {"int2k": lows.vmm_int2k, "int3k": lows.vmm_int3k},
    lows.embed_lows,
    dict.fromkeys(("int2k", "int3k"), lows.vmm_each_lows),
    dict.fromkeys(("int2k", "int3k"), lows.gemm_words_lows),
    lows.gemm_floats_lows,
)
KEPT = (FIVES, IQ4S, LOWS)
_OF = {name: family for family in (FIRST, *KEPT) for name in family.formats}


def family_of(layout: Layout) -> Family:
    """The kernels for a matrix of this layout."""
    return _OF[layout.dtype]


def kernels_of_prompts(layout: Layout, tokens: int) -> tuple[Kernel, Kernel]:
    """What packs so many activations of a prompt for a matrix, and what multiplies it."""
    family = family_of(layout)
    if not (layout.quantized and has_word_dot()):
        return packing.pack_floats, family.floats
    long = tokens >= byte_gemm.LEAST_TOKENS
    if long and layout.dtype in byte_gemm.KERNELS and rounds_to_bytes():
        return packing.pack_bytes, byte_gemm.KERNELS[layout.dtype]
    return packing.pack_words, family.words[layout.dtype]
