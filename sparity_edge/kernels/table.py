"""Table: every kernel, the operation that records it, its NumPy twin, and when it is compiled.

What a start and a first batch compile, the tests over all kernels, `bench/kernels.py` and
docs/kernels.md are read from here. Knows nothing of how an operation is recorded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from sparity_edge.kernels.batch import masks, own_lists, products
from sparity_edge.kernels.decode import activations, attention, elementwise, unpack, vmm
from sparity_edge.kernels.kept.families import FIRST, KEPT, kernels_of_prompts
from sparity_edge.kernels.kernel import Kernel
from sparity_edge.kernels.prefill import attention as prefill_attention
from sparity_edge.kernels.prefill import byte_gemm, gemm, packing
from sparity_edge.kernels.screened import lane_rows, near_best
from sparity_edge.kernels.sparse import ffn, select, spvmm, vmmsp
from sparity_edge.packed.layout import Layout

FLOATS = ("f32", "bf16")
GROUPED = ("int8", "int4")
EVERY = FIRST.formats  # of matrices of either orientation and of bundles


class When(Enum):
    """When a kernel is compiled."""

    START = "every start"
    FORMAT = "a start, if a matrix has its format"
    PROMPTS = "every start, for prompts that are not short"
    PROMPT = "a start, if prompts that are not short multiply a matrix by it"
    SPARSE = "a start, if a matrix is input-major"
    SCREEN = "a start, if the LM head has a screen"
    BATCH = "the first batch, if a matrix needs it"
    USE = "first use"


@dataclass(frozen=True)
class Entry:
    """A kernel and what is known of it.

    Args:
        kernel: declares its argument block and says what it computes.
        operation: of `Operations` (or of the programs of bench and tests) that records it.
        chunk: what one chunk is.
        when: it is compiled.
        formats: of the matrix that it reads; none where it reads activations alone.
        orientation: of that matrix, "output" or "input".
        scratch: what it keeps in scratch memory.
        waits: whether all operations before it have to be done, even beside others.
        bench: kind of `bench/kernels.py` that times it.
    """

    kernel: Kernel
    operation: str
    chunk: str
    when: When
    formats: tuple[str, ...] = ()
    orientation: str = ""
    scratch: str = ""
    waits: bool = False
    bench: str = ""


_PART = "a part of the list"
TABLE = (
    # --- every model ---------------------------------------------------------------------------
    Entry(
        activations.split_activations, "linear", "512 numbers", When.START, waits=True,
        bench="dense",
    ),
    Entry(activations.rmsnorm_split, "rmsnorm, linear", "512 numbers", When.START, waits=True),
    Entry(activations.silu_mul_split, "silu_mul, linear", "512 numbers", When.START, waits=True),
    Entry(
        activations.attention_combine_split, "attention, linear", "a head", When.START, waits=True
    ),
    Entry(
        unpack.embed, "embed", "a token", When.START, EVERY, "output", "a group's scales"
    ),
    Entry(elementwise.rmsnorm, "rmsnorm", "a token", When.START),
    Entry(elementwise.rope, "rope", "a token", When.START),
    Entry(elementwise.append, "append", "a token", When.START, scratch="a rotated key"),
    Entry(elementwise.silu_mul, "silu_mul", "2048 numbers of a token", When.START),
    Entry(
        prefill_attention.attention_prefill, "attention", "a key-value head and some 96 queries",
        When.PROMPTS, scratch="64 keys and values, scores, weighted values",
    ),
    Entry(
        attention.attention_decode, "attention", "a key-value head and 256 positions", When.START,
        scratch="queries, 64 rows of the cache, scores",
    ),
    Entry(attention.attention_combine, "attention", "a head", When.START, waits=True),
    # --- dense products --------------------------------------------------------------------------
    *(
        Entry(
            kernel, "linear", "64 KB of rows", When.FORMAT, formats, "output", "a vector of scales",
            bench="dense",
        )
        for kernel, formats in (
            (vmm.vmm_floats, FLOATS),
            (vmm.vmm_int8, ("int8",)),
            (vmm.vmm_int4, ("int4",)),
            (vmm.vmm_kquants, ("int4k", "int6k")),
        )
    ),
    Entry(
        packing.pack_floats, "linear", "6 tokens", When.PROMPT, waits=True,
        scratch="16 x 16 numbers", bench="prefill",
    ),
    Entry(packing.pack_words, "linear", "6 tokens", When.PROMPT, waits=True, bench="prefill"),
    Entry(packing.pack_bytes, "linear", "6 tokens", When.PROMPT, waits=True, bench="prefill"),
    Entry(
        gemm.gemm_floats, "linear", "32 outputs", When.PROMPT, EVERY, "either",
        "an unpacked panel, sums", bench="prefill",
    ),
    *(
        Entry(
            kernel, "linear", "1 to 4 panels of 32 outputs", When.PROMPT, formats, "either",
            "an unpacked panel, sums", bench="prefill",
        )
        for kernel, formats in (
            (gemm.gemm_words, GROUPED),
            (gemm.gemm_words_kquants, ("int4k", "int6k")),
            (byte_gemm.gemm_bytes, ("int4",)),
            (byte_gemm.gemm_bytes_kquants, ("int4k", "int6k")),
        )
    ),
    # --- active channels -------------------------------------------------------------------------
    Entry(select.select_threshold, "sparsify", "all channels", When.SPARSE, bench="select"),
    Entry(
        select.select_top, "sparsify", "all channels", When.SPARSE, scratch="scores, twice",
        bench="select",
    ),
    Entry(
        spvmm.spvmm, "linear", "a panel of columns of " + _PART, When.SPARSE, EVERY, "input",
        "row addresses, digits, blocks", bench="sparse",
    ),
    Entry(
        spvmm.add_parts, "linear, neurons", "128 outputs", When.SPARSE, scratch="the last 16",
        waits=True, bench="sparse",
    ),
    Entry(
        ffn.ffn, "neurons", _PART, When.SPARSE, EVERY, "bundle", "digits, row addresses",
        bench="sparse",
    ),
    Entry(elementwise.silu, "silu", "2048 numbers of a token", When.SPARSE),
    Entry(elementwise.multiply, "neurons, multiply", "2048 numbers of a token", When.SPARSE),
    Entry(masks.sparsify_threshold, "sparsify", "a token", When.SPARSE),
    Entry(masks.sparsify_top, "sparsify", "a token", When.SPARSE, scratch="scores, twice"),
    Entry(masks.subtract, "linear", "the token", When.SPARSE),
    Entry(masks.tally, "tally", "all counts", When.SPARSE),
    Entry(elementwise.relu, "relu, neurons", "2048 numbers of a token", When.USE),
    Entry(elementwise.scale, "scale", "2048 numbers of a token", When.USE),
    # --- several sequences -----------------------------------------------------------------------
    Entry(products.split_each, "linear", "512 numbers of a token", When.BATCH, waits=True),
    *(
        Entry(kernel, "linear", "64 KB of rows", When.BATCH, formats, "output", "scales, sums")
        for kernel, formats in (
            (products.vmm_each_floats, FLOATS),
            (products.vmm_each_integers, ("int8", "int4")),
            (products.vmm_each_kquants, ("int4k", "int6k")),
        )
    ),
    Entry(
        own_lists.spvmm_each, "linear", "a panel of columns of " + _PART, When.BATCH, EVERY,
        "input",
        "for each token what spvmm has",
    ),
    Entry(
        products.ffn_each, "neurons", _PART, When.BATCH, EVERY, "bundle",
        "for each token what ffn has",
    ),
    Entry(
        own_lists.ffn_own, "neurons", _PART, When.BATCH, EVERY, "bundle",
        "for each token what ffn has",
    ),
    # --- formats that are kept as they come ------------------------------------------------------
    *(
        Entry(
            kernel, "linear", "64 KB of rows", When.FORMAT, (name,), "output", bench="dense",
        )
        for family in KEPT
        for name, kernel in family.dense.items()
    ),
    *(
        entry
        for family in KEPT
        for entry in (
            Entry(
                family.embed, "embed", "a token", When.FORMAT, family.formats, "output",
                "a group's scales",
            ),
            *(
                Entry(
                    kernel, "linear", "1 to 4 panels of 32 outputs", When.PROMPT, family.formats,
                    "output", "an unpacked panel, sums", bench="prefill",
                )
                for kernel in dict.fromkeys(family.words.values())
            ),
            Entry(
                family.floats, "linear", "32 outputs", When.PROMPT, family.formats, "output",
                "an unpacked panel, sums", bench="prefill",
            ),
            *(
                Entry(
                    kernel, "linear", "64 KB of rows", When.BATCH, family.formats, "output",
                    "scales, sums",
                )
                for kernel in dict.fromkeys(family.each.values())
            ),
        )
    ),
    # --- the LM head behind a screen -------------------------------------------------------------
    Entry(lane_rows.split_small, "screened", "64 numbers", When.SCREEN),
    Entry(lane_rows.vmm_lane_rows, "screened", "64 KB of rows", When.SCREEN),
    Entry(
        near_best.select_highest, "screened", "all outputs", When.SCREEN, scratch="largest scores",
    ),
    Entry(
        near_best.select_near_best, "screened", "all outputs", When.SCREEN, scratch="exact values",
    ),
    *(
        Entry(
            kernel, "vmmsp", _PART, When.SCREEN,
            tuple(name for name, of in vmmsp.KERNELS.items() if of is kernel), "output",
            "a vector of scales", bench="sparse",
        )
        for kernel in dict.fromkeys(vmmsp.KERNELS.values())
    ),
    # --- N:M sparsity ----------------------------------------------------------------------------
    Entry(
        select.select_n_of_m, "select_n_of_m, sparsify", "64 groups of m channels", When.USE,
        scratch="scores of a group", bench="select",
    ),
    Entry(masks.sparsify_n_of_m, "sparsify", "a token", When.USE, scratch="scores of a group"),
)  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A matrix that a model has, as far as it decides on kernels."""

    layout: Layout
    of_bundle: bool = False
    of_screen: bool = False


def kernels_at_start(matrices: Iterable[Stored], prompts: bool = True) -> list[Kernel]:
    """What a model with these matrices needs for prompts and for decoding one token.

    Args:
        matrices: of the model.
        prompts: whether they may be too long to be read token by token.
    """
    matrices = list(matrices)
    always = (When.START, When.PROMPTS)
    return [
        entry.kernel
        for entry in TABLE
        if (prompts or entry.when not in (When.PROMPTS, When.PROMPT))
        and (entry.when in always or any(_at_start(entry, each) for each in matrices))
    ]


def kernels_of_batches(matrices: Iterable[Stored]) -> list[Kernel]:
    """What it needs besides once several sequences decode together."""
    matrices = list(matrices)
    return [entry.kernel for entry in TABLE if any(_in_batch(entry, each) for each in matrices)]


def _at_start(entry: Entry, stored: Stored) -> bool:
    layout = stored.layout
    if entry.when is When.SCREEN:
        return stored.of_screen and layout.dtype in (entry.formats or (layout.dtype,))
    if entry.when is When.PROMPT and not stored.of_screen:
        lengths = (1, byte_gemm.LEAST_TOKENS)
        return any(entry.kernel in kernels_of_prompts(layout, tokens) for tokens in lengths)
    if entry.when is When.FORMAT:
        whole = layout.orientation == "output" and not stored.of_bundle
        return whole and layout.dtype in entry.formats
    if entry.when is When.SPARSE:
        return layout.orientation == "input"
    return False


def _in_batch(entry: Entry, stored: Stored) -> bool:
    layout = stored.layout
    if entry.when is not When.BATCH or stored.of_screen:
        return False
    if entry.kernel is products.split_each:
        return layout.orientation == "output" and layout.quantized
    if entry.orientation == "bundle":
        return stored.of_bundle
    mine = layout.orientation == entry.orientation and layout.dtype in entry.formats
    return mine and not stored.of_bundle
