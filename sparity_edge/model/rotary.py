"""Rotary position embedding: the table of cosines and sines (Su et al., 2021)."""

from __future__ import annotations

import math

import numpy as np

from sparity_edge.arrays import Floats
from sparity_edge.config.model_config import ModelConfig


def frequencies(config: ModelConfig) -> Floats:
    """Radians a position for each pair of a head that is rotated, scaled as the config says."""
    size = config.rotary_dim or config.head_dim
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    plain = (1.0 / np.float32(config.rope_theta) ** exponents).astype(np.float32)
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    if scaling.rope_type == "linear":
        return (plain / np.float32(scaling.factor)).astype(np.float32)
    # llama3: long waves are stretched, short ones kept, and those between blended.
    context = scaling.original_max_position_embeddings
    waves = 2 * math.pi / plain
    blend = (context / waves - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    blend = np.clip(blend, 0, 1)
    return ((1 - blend) * plain / scaling.factor + blend * plain).astype(np.float32)


def _gain(config: ModelConfig) -> float:
    """What q and k are both multiplied by, so that scores have the factor that the config asks for.

    Attention divides them by sqrt(head_dim) in any case.
    """
    scores = config.scales.scores
    return 1.0 if scores is None else math.sqrt(scores * math.sqrt(config.head_dim))


def no_rotation(config: ModelConfig, positions: int) -> Floats:
    """(positions, head_dim): a table that turns no vector, for layers without rope."""
    table = np.zeros((positions, config.head_dim), dtype=np.float32)
    table[:, : config.head_dim // 2] = _gain(config)
    return table


def rotary_table(config: ModelConfig, positions: int) -> Floats:
    """(positions, head_dim): the cosines of all pairs, then their sines.

    Pairs that are not rotated are the last ones.
    """
    half = config.head_dim // 2
    turns = np.zeros(half, dtype=np.float32)
    rotated = frequencies(config)
    turns[: len(rotated)] = rotated
    table = np.empty((positions, config.head_dim), dtype=np.float32)
    # In place: at 32768 positions of 128 numbers each further array would take 8 MB.
    cosines, sines = table[:, :half], table[:, half:]
    np.multiply(np.arange(positions, dtype=np.float32)[:, None], turns, out=sines)
    np.cos(sines, out=cosines)
    np.sin(sines, out=sines)
    gain = _gain(config)
    if gain != 1:
        table *= np.float32(gain)
    return table
