"""Scales: constants that a family puts on vectors between the matrices.

MiniCPM (Hu et al., arXiv 2404.06395) multiplies the embedding by scale_emb, what each half of a
layer adds to the residual stream by scale_depth / sqrt(layers), and the input of the head by
dim_model_base / hidden_size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from sparity_edge.config.values import read_real, show
from sparity_edge.errors import ConfigError

LARGEST_FACTOR = 1e6  # so that nothing overflows; those in use are 12, 1.4 and 256


class Scales(NamedTuple):
    """Factors on vectors."""

    embedding: float = 1.0
    residual: float = 1.0  # on what attention and FFN add
    head: float = 1.0  # on the input of the LM head


UNSCALED = Scales()


def no_scales(config: Mapping[str, object], layers: int, hidden: int) -> Scales:  # noqa: ARG001
    """No vector is scaled, whatever config.json says."""
    return UNSCALED


def minicpm_scales(config: Mapping[str, object], layers: int, hidden: int) -> Scales:
    """`scale_emb`, `scale_depth` and `dim_model_base`, 1 where one is not there.

    Args:
        config: the content of config.json, defaults filled in.
        layers: how many there are.
        hidden: size of the residual stream.

    Raises:
        ConfigError: one is no sensible factor.
    """
    embedding, depth = (_factor(config, key) for key in ("scale_emb", "scale_depth"))
    base = _factor(config, "dim_model_base")
    return Scales(embedding, depth / math.sqrt(layers), base / hidden)


def _factor(config: Mapping[str, object], key: str) -> float:
    value = read_real(config, key, default=1.0)
    if not 1 / LARGEST_FACTOR <= value <= LARGEST_FACTOR:
        raise ConfigError(
            f"config.json: {key}={show(value)} is not a number from {1 / LARGEST_FACTOR:g} to "
            f"{LARGEST_FACTOR:g}."
        )
    return value
