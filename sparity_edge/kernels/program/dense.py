"""Records of dense products: of one token (GEMV) and of many (GEMM)."""

from __future__ import annotations

from sparity_edge.arrays import Floats, round_up
from sparity_edge.kernels.decode import vmm as kernels
from sparity_edge.kernels.kept.families import family_of, kernels_of_prompts
from sparity_edge.kernels.matrix import Matrix
from sparity_edge.kernels.prefill import gemm as prefill
from sparity_edge.kernels.prefill import packing
from sparity_edge.kernels.program.forms import digits_of, tiles_of
from sparity_edge.kernels.program.recorder import Recorder
from sparity_edge.kernels.program.sparse import every_channel, spvmm
from sparity_edge.kernels.simd.float_tiles import PANEL, TOKENS
from sparity_edge.kernels.simd.int16_tiles import UNIT
from sparity_edge.packed.layout import Layout

# Weights in one chunk of a decoding matrix: small enough to share evenly, large enough that taking
# a chunk (0.1 us) is nothing.
CHUNK_BYTES = 1 << 16
LEAST_CHUNKS = 8


def vmm(
    recorder: Recorder,
    x: Floats,
    matrix: Matrix,
    out: Floats,
    bias: Floats | None,
    accumulate: bool,
) -> None:
    """out = x W^T (+ bias) (+ out) of one token."""
    layout = matrix.layout
    if layout.orientation == "input":
        spvmm(recorder, x, matrix, every_channel(layout.shape[1]), [out], [bias], accumulate)
        return
    digits = digits_of(recorder, x, layout)
    chunks, step = steps_of(layout)
    recorder.record(
        family_of(layout).dense[layout.dtype], chunks, matrix=matrix, x=x, bias=bias, out=out,
        accumulate=accumulate, **dense_words(layout, step), **digits._asdict(), writes=out,
        stream=stream_of(matrix, step),
    )  # fmt: skip


def steps_of(layout: Layout) -> tuple[int, int]:
    """Chunks of a dense product, and rows of a chunk; they depend on the shape alone."""
    outputs = layout.shape[0]
    step = max(1, min(CHUNK_BYTES // layout.row_bytes, -(-outputs // LEAST_CHUNKS)))
    return -(-outputs // step), step


def dense_words(layout: Layout, step: int) -> dict[str, int]:
    """The words of a dot product that only dense products have."""
    return {"step": step, "ahead": kernels.lead_of(layout)}


def stream_of(matrix: Matrix, step: int) -> tuple[int, int]:
    """Where the rows of a matrix stand, and bytes of `step` of them."""
    return matrix.data_address, step * matrix.layout.row_bytes


def gemm(
    recorder: Recorder,
    x: Floats,
    matrix: Matrix,
    out: Floats,
    bias: Floats | None,
    accumulate: bool,
) -> None:
    """out = x W^T (+ bias) (+ out) of many tokens."""
    layout = matrix.layout
    pack, product = kernels_of_prompts(layout, len(x))
    words, input_major = pack is not packing.pack_floats, layout.orientation == "input"
    depth = round_up(layout.shape[1], layout.group or 1) if input_major else layout.padded
    tiles = tiles_of(recorder, x, pack)
    rows = 0 if words or input_major else 4 * PANEL * depth
    panels = _panels_of_chunk(layout.shape[0], recorder.threads) if words else 1
    sums = panels * prefill.SUMS * -(-len(x) // TOKENS)
    recorder.need_scratch(prefill.SMALL_SCRATCH + prefill.PANEL_BYTES + sums + rows)
    recorder.record(
        product, -(-layout.shape[0] // (PANEL * panels)), matrix=matrix, tiles=tiles.packed,
        tile_bytes=tiles.tile_bytes, out=out, out_stride=out.strides[0],
        depth=depth // UNIT if words else depth, input_major=input_major, panels=panels,
        bias=bias, accumulate=accumulate, tokens=len(x), writes=out,
    )  # fmt: skip


def _panels_of_chunk(outputs: int, threads: int) -> int:
    """How many panels share activations in L2; fewer where threads would wait for each other.

    No sum depends on it.
    """
    return min(prefill.MOST_PANELS, max(1, outputs // (4 * PANEL * threads)))
