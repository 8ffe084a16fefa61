"""Weights of up and down to a bundle and back; no value changes on the way."""

from __future__ import annotations

from typing import Any

from converters.layout_bytes import Array, pack_matrix, unpack_matrix
from converters.quantize import Quantized
from sparity_edge.bundle import BundleLayout, PackedBundle, join, split
from sparity_edge.layout import PackedMatrix


def pack_bundle(up: Quantized | Array, down: Quantized | Array, layout: BundleLayout) -> Any:
    """The bytes of a bundle.

    Args:
        up: (neurons, hidden), as `pack_matrix` takes it for `layout.up`.
        down: (hidden, neurons), for `layout.down`.
        layout: of both.

    Returns:
        uint8 (layout.nbytes,), 64-byte aligned, padding zero.
    """
    matrices = [
        PackedMatrix(each, pack_matrix(weights, each))
        for weights, each in ((up, layout.up), (down, layout.down))
    ]
    return join(*matrices).data


def unpack_bundle(bundle: PackedBundle) -> tuple[Any, Any]:
    """Up and down as `unpack_matrix` gives them."""
    up, down = split(bundle)
    return unpack_matrix(up.data, up.layout), unpack_matrix(down.data, down.layout)
