"""Scales: constants that a family puts on vectors, as the decoder carries them out.

MiniCPM (Hu et al., arXiv 2404.06395) and Granite (IBM, 2024) multiply the embedding, what each half
of a layer adds to the residual stream, and the logits or what they are made of; Granite has a
factor of its own on the scores of attention, too.

What halves of a layer are multiplied by costs nothing: norms take the size of the stream out again,
so that it may be kept divided by that number, which then stands at the embedding alone, and with
its square at the epsilon of the norms.
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
    epsilon: float = 1.0  # on that of the norms of the residual stream
    head: float = 1.0  # on the input of the LM head
    scores: float | None = None  # on those of attention; None: 1 / sqrt(head_dim)


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
    return _scales(embedding, depth / math.sqrt(layers), base / hidden)


def granite_scales(
    config: Mapping[str, object],
    layers: int,  # noqa: ARG001
    hidden: int,  # noqa: ARG001
) -> Scales:
    """`embedding_multiplier`, `residual_multiplier`, `logits_scaling` and `attention_multiplier`.

    1 where one is not there; an attention_multiplier that is null stands for 1 / sqrt(head_dim).

    Args:
        config: the content of config.json, defaults filled in.
        layers: how many there are.
        hidden: size of the residual stream.

    Raises:
        ConfigError: one is no sensible factor.
    """
    embedding = _factor(config, "embedding_multiplier")
    residual = _factor(config, "residual_multiplier")
    scores = None
    if config.get("attention_multiplier", 1.0) is not None:
        scores = _factor(config, "attention_multiplier")
    return _scales(embedding, residual, 1 / _factor(config, "logits_scaling"), scores)


def _scales(embedding: float, added: float, head: float, scores: float | None = None) -> Scales:
    """With the factor on what halves of a layer add taken over to the embedding."""
    return Scales(embedding / added, 1 / added**2, head, scores)


def _factor(config: Mapping[str, object], key: str) -> float:
    value = read_real(config, key, default=1.0)
    if not 1 / LARGEST_FACTOR <= value <= LARGEST_FACTOR:
        raise ConfigError(
            f"config.json: {key}={show(value)} is not a number from {1 / LARGEST_FACTOR:g} to "
            f"{LARGEST_FACTOR:g}."
        )
    return value
