"""Rotary embeddings in config.json: the base and how frequencies are stretched.

Reads both styles: `rope_theta` and `rope_scaling` at the top level (transformers 4), and
`rope_parameters` that holds everything (transformers 5), for all layers or for the types of layers
apart. What is missing means what transformers 5 takes it to mean. The arithmetic on the frequencies
is the decoder's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparity_edge.config.values import (
    MAX_CONTEXT,
    read_boolean,
    read_integer,
    read_real,
    read_reals,
    show,
)
from sparity_edge.errors import ConfigError

FACTOR = "partial_rotary_factor"
ROPE_TYPES = ("linear", "llama3", "dynamic", "yarn", "longrope")
LENGTH_KEY = "original_max_position_embeddings"
QUERY_KEY = "llama_4_scaling_beta"


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for long contexts.

    `linear` divides every frequency by `factor`; `llama3` divides only the slow ones and blends
    between (Llama 3.1 model card); `yarn` does so with other bounds (Peng et al., arXiv
    2309.00071). `longrope` divides each by a number of its own, one set for texts up to the
    original length and one for longer texts (Ding et al., arXiv 2402.13753). `dynamic` raises the
    base with every position beyond `original_max_position_embeddings`.
    """

    rope_type: str  # one of ROPE_TYPES
    factor: float
    original_max_position_embeddings: int = 8192
    attention_factor: float = 1.0  # yarn, longrope: on what is rotated, q as well as k
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0  # yarn: turns within the original length from which on nothing changes
    beta_slow: float = 1.0  # and up to which frequencies are divided by the full factor
    truncate: bool = True  # whether these bounds are rounded to whole pairs
    query_beta: float = 0.0  # yarn in Ministral 3: queries grow with every original length
    short_factor: tuple[float, ...] = ()  # longrope: a divisor for each pair
    long_factor: tuple[float, ...] = ()

    @property
    def by_length(self) -> bool:
        """Whether frequencies depend on how long a text is."""
        return self.rope_type == "dynamic" or self.short_factor != self.long_factor


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of a layer: the base of its frequencies, and how they are stretched."""

    theta: float
    scaling: RopeScaling | None
    dim: int  # how many numbers of a head are rotated, two to a pair


def read_ropes(
    config: Mapping[str, Any], dim: int, by_layer_type: bool
) -> tuple[Rope, Rope | None]:
    """The rotary embedding of the layers, and that of those with a sliding window.

    Args:
        config: the content of config.json, defaults filled in.
        dim: how many numbers of a head are rotated.
        by_layer_type: whether windowed layers have one of their own: what rope_parameters holds
            for them, else one that is not stretched.

    Returns:
        The second is None where all layers have the first one.

    Raises:
        ConfigError: a rope type, a partial rotation or a value that is not supported.
    """
    key, entry = _rope_entry(config)
    if not by_layer_type:
        return _read_rope(config, key, entry, dim), None
    full, windowed = (entry.get(kind) for kind in ("full_attention", "sliding_attention"))
    rope = _read_rope(config, key, full if isinstance(full, Mapping) else entry, dim)
    if not isinstance(windowed, Mapping):
        return rope, Rope(rope.theta, None, dim)
    in_windows = _read_rope(config, key, windowed, dim)
    if in_windows.scaling is not None and in_windows.scaling.by_length:
        raise ConfigError(
            f"config.json: {key} stretches layers with a sliding window by "
            f"{in_windows.scaling.rope_type}, which is not supported."
        )
    return rope, in_windows


def _rope_entry(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Key and value of what holds the scaling; as in transformers the old key goes first."""
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    entry = config.get(key) or {}
    if not isinstance(entry, Mapping):
        raise ConfigError(f"config.json: {key}={show(entry)} is not a JSON object.")
    return key, entry


def _read_rope(config: Mapping[str, Any], key: str, entry: Mapping[str, Any], dim: int) -> Rope:
    for name, value in entry.items():
        if isinstance(value, Mapping):
            raise ConfigError(
                f"config.json: {key} has an entry {show(name)} of its own; rotary embeddings "
                "that differ by layer are not supported."
            )
    holder = entry if entry.get("rope_theta") is not None else config
    theta = read_real(holder, "rope_theta", default=10000.0)
    return Rope(theta, _scaling(config, entry, theta, dim), dim)


def rotary_dim(config: Mapping[str, Any], head_dim: int, partial: bool) -> int | None:
    """How many numbers of a head are rotated; None where all of them are.

    Args:
        config: the content of config.json, defaults filled in.
        head_dim: how many there are.
        partial: whether the family knows rotation of some of them.

    Raises:
        ConfigError: the factor is not supported.
    """
    factor = _rope_entry(config)[1].get(FACTOR, config.get(FACTOR))
    if factor is None or factor == 1:
        return None
    if not partial:
        raise ConfigError(
            f"config.json: {FACTOR}={show(factor)} is not supported for "
            f"model_type={show(config.get('model_type'))}; only 1.0 is."
        )
    count = int(head_dim * read_real({FACTOR: factor}, FACTOR))
    if count % 2 or not 0 < count < head_dim:
        raise ConfigError(
            f"config.json: {FACTOR}={show(factor)} rotates {count} of head_dim={head_dim} numbers, "
            "which is no even number below it."
        )
    return count


def _scaling(
    config: Mapping[str, Any], entry: Mapping[str, Any], theta: float, dim: int
) -> RopeScaling | None:
    """How the frequencies are stretched; None where they are not."""
    rope_type = entry.get("rope_type") or entry.get("type") or "default"
    rope_type = "longrope" if rope_type == "su" else rope_type  # its name in the first Phi-3
    if rope_type == "default":
        return None
    if rope_type == "linear":
        return RopeScaling("linear", read_real(entry, "factor"))
    if rope_type == "llama3":
        return _llama3(config, entry)
    if rope_type == "dynamic":
        return _dynamic(config, entry, dim)
    if rope_type == "yarn":
        return _yarn(config, entry, theta)
    if rope_type == "longrope":
        return _longrope(config, entry, dim)
    raise ConfigError(
        f"config.json: rope_type={show(rope_type)} is not supported; use default, "
        f"{', '.join(ROPE_TYPES[:-1])} or {ROPE_TYPES[-1]}."
    )


def _length(config: Mapping[str, Any]) -> int:
    return read_integer(config, "max_position_embeddings", MAX_CONTEXT)


def _original(config: Mapping[str, Any], entry: Mapping[str, Any]) -> int:
    """The length that the model was trained with before it was stretched."""
    holder = config if config.get(LENGTH_KEY) is not None else entry
    return read_integer(holder, LENGTH_KEY, MAX_CONTEXT, default=_length(config), least=2)


def _llama3(config: Mapping[str, Any], entry: Mapping[str, Any]) -> RopeScaling:
    return RopeScaling(
        "llama3",
        factor=read_real(entry, "factor"),
        original_max_position_embeddings=_original(config, entry),
        low_freq_factor=read_real(entry, "low_freq_factor"),
        high_freq_factor=read_real(entry, "high_freq_factor"),
    )


def _dynamic(config: Mapping[str, Any], entry: Mapping[str, Any], dim: int) -> RopeScaling:
    if dim <= 2:  # the exponent dim / (dim - 2)
        raise ConfigError(f"config.json: rope_type='dynamic' with head_dim={dim} has no base.")
    length = _length(config)  # transformers leaves original_max_position_embeddings aside here
    return RopeScaling("dynamic", read_real(entry, "factor"), length)


def _yarn(config: Mapping[str, Any], entry: Mapping[str, Any], theta: float) -> RopeScaling:
    if theta <= 1:
        raise ConfigError(f"config.json: rope_theta={show(theta)} is not above 1, as yarn needs.")
    original = _original(config, entry)
    factor = read_real(entry, "factor", default=_length(config) / original)
    size, size_of_all = (_optional(entry, key) for key in ("mscale", "mscale_all_dim"))
    usual = _yarn_size(factor, 1.0)
    if size and size_of_all:
        usual = _yarn_size(factor, size) / _yarn_size(factor, size_of_all)
    return RopeScaling(
        "yarn",
        factor,
        original,
        attention_factor=read_real(entry, "attention_factor", default=usual),
        beta_fast=_optional(entry, "beta_fast") or 32.0,
        beta_slow=_optional(entry, "beta_slow") or 1.0,
        truncate=read_boolean(entry, "truncate", default=True),
        query_beta=_optional(entry, QUERY_KEY) or 0.0,
    )


def _yarn_size(factor: float, weight: float) -> float:
    """What yarn multiplies rotated vectors by."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _longrope(config: Mapping[str, Any], entry: Mapping[str, Any], dim: int) -> RopeScaling:
    original = _original(config, entry)
    factor = read_real(entry, "factor", default=_length(config) / original)
    usual = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    return RopeScaling(
        "longrope",
        factor,
        original,
        attention_factor=read_real(entry, "attention_factor", default=usual),
        short_factor=read_reals(entry, "short_factor", dim // 2),
        long_factor=read_reals(entry, "long_factor", dim // 2),
    )


def _optional(entry: Mapping[str, Any], key: str) -> float | None:
    """A number above 0; None where it is not there, null or 0, all of which mean the same."""
    return read_real(entry, key) if entry.get(key) else None
