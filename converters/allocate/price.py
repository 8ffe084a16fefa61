"""What reading the weights of a piece takes: bytes, or time by the length of its rows.

Bytes are not time: rows of half a kilobyte, read here and there, come at half the speed of a
stream, those of 9 KB at nearly all of it. The typical speeds below were measured on two cores of a
Zen 4 with 33 GB/s; only their ratios matter to an allocation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from converters.allocate.lagrange import Array, Price
from sparity_edge.packed.bundle import BundleLayout
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.plans.plan import NEURONS, linear_name

Spec = Layout | BundleLayout  # how a matrix or a bundle is stored
# Speed of reading a share of rows over that of reading all, by bytes of a row and share.
SHARES = (0.3, 0.5, 0.75, 1.0)
SPEEDS: Mapping[int, tuple[float, ...]] = {
    320: (0.45, 0.52, 0.70, 1.0),
    640: (0.56, 0.62, 0.66, 1.0),
    2304: (0.55, 0.61, 0.76, 1.0),
    4608: (0.72, 0.72, 0.81, 1.0),
    9216: (0.80, 0.88, 1.0, 1.0),
    18432: (0.85, 0.9, 1.0, 1.0),
}


def by_bytes(specs: Mapping[str, Spec], means: Sequence[PackedMatrix | None] = ()) -> Price:
    """Bytes read of each piece, headers of scales and folded matrices included.

    Args:
        specs: tensor name -> how it is stored.
        means: by layer, what has to be read where neurons are skipped at all.
    """
    return _price(specs, means, lambda _, densities: densities)


def by_time(specs: Mapping[str, Spec], means: Sequence[PackedMatrix | None] = ()) -> Price:
    """As `by_bytes`, each byte divided by the typical speed at which rows of its length come.

    The unit is that of a byte of a stream.
    """
    return _price(specs, means, lambda row, densities: densities / speed(row, densities))


def speed(row_bytes: int, densities: Array) -> Array:
    """Of reading a share of rows, over that of reading them all; straight lines between."""
    sizes = np.log(list(SPEEDS))
    table = np.array(list(SPEEDS.values()))
    row = [np.interp(np.log(row_bytes), sizes, column) for column in table.T]
    result: Array = np.interp(densities, SHARES, row)
    return result


def _price(specs: Mapping[str, Spec], means: Sequence[PackedMatrix | None], part: Any) -> Price:
    def price(piece: str, layer: int, densities: Array) -> Array:
        spec, rows = _stored(specs, layer, piece), skippable_bytes(specs, layer, piece)
        taken = part(spec.row_bytes, densities) * rows + (spec.nbytes - rows)
        if piece == NEURONS and means and (mean := means[layer]) is not None:
            taken = taken + (densities < 1) * mean.layout.nbytes
        result: Array = taken
        return result

    return price


def _stored(specs: Mapping[str, Spec], layer: int, piece: str) -> Spec:
    if piece != NEURONS:
        return specs[linear_name(layer, piece)]
    bundle = specs[f"model.layers.{layer}.mlp.up_down"]
    assert isinstance(bundle, BundleLayout)
    return bundle


def skippable_bytes(specs: Mapping[str, Spec], layer: int, piece: str) -> int:
    """Bytes of a piece that are not read when all of its channels are skipped."""
    if piece == NEURONS:
        spec = specs[f"model.layers.{layer}.mlp.up_down"]
        assert isinstance(spec, BundleLayout)
        return spec.neurons * spec.row_bytes
    spec = specs[linear_name(layer, piece)]
    assert isinstance(spec, Layout)
    return spec.shape[1] * spec.row_bytes
