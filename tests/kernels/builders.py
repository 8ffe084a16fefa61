"""What the tests of kernels share: activations, packed matrices, lists, rows of the KV cache."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from packing import random_weights

from converters.numbers.lane_bytes import pack_lanes, quantized_lanes
from converters.numbers.layout_bytes import pack_matrix
from sparity_edge.arrays import Doubles, Floats, Numbers, aligned_zeros, rows
from sparity_edge.kernels.active_list import ActiveList, empty_list, set_channels
from sparity_edge.kernels.kept.families import kernels_of_prompts
from sparity_edge.kernels.kv_format import empty_rows, write
from sparity_edge.kernels.prefill import packing as prefill_packing
from sparity_edge.kernels.reference.rounding import rounded_to_bytes
from sparity_edge.packed.bundle import PackedBundle, join
from sparity_edge.packed.lane_rows import LaneLayout, LaneRows
from sparity_edge.packed.layout import GROUPS, Layout, PackedMatrix

Form = tuple[str, int, bool]  # number format, group, minimum


def normal(seed: int, count: int, size: int, scale: float = 1) -> Floats:
    """Activations (count, size), normally distributed."""
    values = rows(count, size)
    values[:] = scale * np.random.default_rng(seed).standard_normal((count, size))
    return values


def packed(layout: Layout, seed: int = 0) -> PackedMatrix:
    """A matrix of random weights."""
    return PackedMatrix(layout, pack_matrix(random_weights(layout, seed), layout))


def matrix_of(form: Form, orientation: str, shape: tuple[int, int], seed: int) -> PackedMatrix:
    """A matrix (outputs, inputs) of random weights in a number format."""
    return packed(Layout(form[0], orientation, shape, *form[1:]), seed)


def bundle_of(up: Form, down: Form, neurons: int, hidden: int, seed: int) -> PackedBundle:
    """Up rows and down columns of some neurons."""
    return join(
        matrix_of(up, "output", (neurons, hidden), seed),
        matrix_of(down, "input", (hidden, neurons), seed + 1),
    )


def lanes(weights: Floats) -> LaneRows:
    """The rows of a screen with about these weights (outputs, inputs)."""
    layout = LaneLayout(*weights.shape)
    data = aligned_zeros(layout.nbytes)
    data[:] = pack_lanes(*quantized_lanes(weights), layout)
    return LaneRows(layout, data)


def some(size: int, density: float, seed: int) -> ActiveList:
    """A random list of about such a share of the channels below `size`."""
    active = empty_list(size)
    chosen = np.random.default_rng(seed).random(size) < density
    set_channels(active, np.flatnonzero(chosen))
    return active


def filled(values: Floats, dtype: str) -> Numbers:
    """Rows of the KV cache (heads, positions) with these values (heads, positions, head_dim)."""
    cached = empty_rows(dtype, values.shape[:2], values.shape[2])
    write(cached, values.astype(np.float32))
    return cached


def as_prompts_round(x: Floats, layout: Layout) -> Doubles:
    """The activations that prompts multiply by such a matrix, but for rounding to 16 bits."""
    if kernels_of_prompts(layout, len(x))[0] is prefill_packing.pack_bytes:
        return rounded_to_bytes(x)
    return x.astype(np.float64)


def bound(x: Floats, weights: Floats) -> Floats:
    """How far a product may be off: activations of 16 bits are right to 1.54e-5 of the largest."""
    return 1e-5 + 1.7e-5 * np.abs(x).max(initial=0) * np.abs(weights).sum(axis=1)


@st.composite
def formats(draw: st.DrawFn) -> Form:
    """Number format, group and minimum."""
    dtype = draw(st.sampled_from(["f32", "bf16", "int8", "int4"]))
    group = draw(st.sampled_from(GROUPS)) if dtype.startswith("int") else 0
    return dtype, group, dtype == "int4" and draw(st.booleans())


# Of more than 512 inputs some stand in blocks, 1024 and 2048 columns have a line more in a row.
sides = st.integers(1, 300) | st.sampled_from([512, 590, 1024, 1100])
seeds = st.integers(0, 99)
