"""Rotary embeddings in config.json: the base and how frequencies are stretched.

Reads both styles: `rope_theta` and `rope_scaling` at the top level (transformers 4), and
`rope_parameters` that holds everything (transformers 5). Types other than linear and llama3 are
refused. The arithmetic on the frequencies is the decoder's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparity_edge.config.values import MAX_CONTEXT, read_integer, read_real, show
from sparity_edge.errors import ConfigError

FACTOR = "partial_rotary_factor"


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for long contexts.

    `linear` divides every frequency by `factor`; `llama3` divides only the slow ones and blends
    between (Llama 3.1 model card). The last three fields are used by `llama3` alone.
    """

    rope_type: str  # "linear" or "llama3"
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


def _rope_entry(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The mapping that holds the scaling; as in transformers the old key goes first."""
    key = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    entry = config.get(key) or {}
    if not isinstance(entry, Mapping):
        raise ConfigError(f"config.json: {key}={show(entry)} is not a JSON object.")
    for name, value in entry.items():
        if isinstance(value, Mapping):
            raise ConfigError(
                f"config.json: {key} has an entry {show(name)} of its own; rotary embeddings "
                "that differ by layer are not supported."
            )
    return entry


def rope_theta(config: Mapping[str, Any]) -> float:
    """The base of the rotary frequencies."""
    entry = _rope_entry(config)
    holder = entry if entry.get("rope_theta") is not None else config
    return read_real(holder, "rope_theta", default=10000.0)


def rotary_dim(config: Mapping[str, Any], head_dim: int, partial: bool) -> int | None:
    """How many numbers of a head are rotated; None where all of them are.

    Args:
        config: the content of config.json, defaults filled in.
        head_dim: how many there are.
        partial: whether the family knows rotation of some of them.

    Raises:
        ConfigError: the factor is not supported.
    """
    factor = _rope_entry(config).get(FACTOR, config.get(FACTOR))
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


def rope_scaling(config: Mapping[str, Any]) -> RopeScaling | None:
    """How the frequencies are stretched; None where they are not.

    Raises:
        ConfigError: a rope type, a partial rotation or a value that is not supported.
    """
    entry = _rope_entry(config)
    rope_type = entry.get("rope_type", entry.get("type", "default"))
    if rope_type == "default":
        return None
    if rope_type == "linear":
        return RopeScaling("linear", read_real(entry, "factor"))
    if rope_type == "llama3":
        return _llama3_scaling(config, entry)
    raise ConfigError(
        f"config.json: rope_type={show(rope_type)} is not supported; use default, linear or llama3."
    )


def _llama3_scaling(config: Mapping[str, Any], entry: Mapping[str, Any]) -> RopeScaling:
    key = "original_max_position_embeddings"
    holder = config if config.get(key) is not None else entry
    longest = read_integer(config, "max_position_embeddings", MAX_CONTEXT)
    scaling = RopeScaling(
        "llama3",
        factor=read_real(entry, "factor"),
        low_freq_factor=read_real(entry, "low_freq_factor"),
        high_freq_factor=read_real(entry, "high_freq_factor"),
        original_max_position_embeddings=read_integer(holder, key, MAX_CONTEXT, default=longest),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise ConfigError(
            f"config.json: high_freq_factor={scaling.high_freq_factor} is not above "
            f"low_freq_factor={scaling.low_freq_factor}; the file is damaged."
        )
    return scaling
