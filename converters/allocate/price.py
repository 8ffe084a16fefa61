"""What reading the weights of a piece takes: bytes, or time by cost curves.

Bytes are not time: rows of half a kilobyte, read here and there, come at half the speed of a
stream, those of 9 KB at nearly all of it; and a matrix that can be skipped row by row may be slower
to read whole than one that cannot. Time is in bytes that a dense product reads meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from converters.allocate.curves import Curves
from converters.allocate.lagrange import Array, Price
from sparity_edge.packed.bundle import BundleLayout
from sparity_edge.packed.layout import Layout, PackedMatrix
from sparity_edge.plans.plan import NEURONS, linear_name

Spec = Layout | BundleLayout  # how a matrix or a bundle is stored


def by_bytes(specs: Mapping[str, Spec], means: Sequence[PackedMatrix | None] = ()) -> Price:
    """Bytes read of each piece, headers of scales and folded matrices included.

    Args:
        specs: tensor name -> how it is stored.
        means: by layer, what has to be read where neurons are skipped at all.
    """

    def price(piece: str, layer: int, densities: Array) -> Array:
        spec, rows = _stored(specs, layer, piece), skippable_bytes(specs, layer, piece)
        result: Array = densities * rows + (spec.nbytes - rows)
        result += (densities < 1) * _mean_bytes(means, layer, piece)
        return result

    return price


def by_time(
    specs: Mapping[str, Spec], means: Sequence[PackedMatrix | None], curves: Curves
) -> Price:
    """Time of each piece, choosing its active channels and folded matrices included.

    Args:
        specs: tensor name -> how it is stored.
        means: by layer, what has to be read where neurons are skipped at all.
        curves: of the machine that decodes.
    """

    def price(piece: str, layer: int, densities: Array) -> Array:
        spec = _stored(specs, layer, piece)
        kernel, channels = ("ffn", spec.neurons) if isinstance(spec, BundleLayout) else (
            "spvmm", spec.shape[1]
        )  # fmt: skip
        taken = spec.dense_nbytes * curves.ratio(kernel, spec.row_bytes, densities)
        more = curves.choosing(channels) + _mean_bytes(means, layer, piece)
        result: Array = taken + (densities < 1) * more
        return result

    return price


def dense_bytes(specs: Mapping[str, Spec], pieces: Sequence[str], layers: int) -> int:
    """What dense decoding reads of some pieces of all layers, as a pack for it stores them."""
    return sum(
        _stored(specs, layer, piece).dense_nbytes for layer in range(layers) for piece in pieces
    )


def _mean_bytes(means: Sequence[PackedMatrix | None], layer: int, piece: str) -> int:
    mean = means[layer] if piece == NEURONS and means else None
    return 0 if mean is None else mean.layout.nbytes


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
