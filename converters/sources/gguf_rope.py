"""Rotary scaling in a GGUF file to `rope_scaling` of config.json.

What llama.cpp computes of `rope.scaling.*` and of the tensors of frequency factors, by which it
divides, is said as transformers says it: by rope type where there is one that means the same, else
as longrope, whose lists can say anything. Of longrope llama.cpp takes one list for as long as a
context lives; here the length of the text decides, as in transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from converters.sources.gguf_metadata import GgufHeader
from converters.sources.source import Array
from sparity_edge.config.rope_scaling import QUERY_KEY, Rope, RopeScaling
from sparity_edge.errors import SourceError
from sparity_edge.model.rotary import yarn_kept

# Tensors of frequency factors, (pairs,): for any text, and by its length.
FREQUENCIES, SHORT, LONG = (
    "rope_freqs.weight",
    "rope_factors_short.weight",
    "rope_factors_long.weight",
)
FACTOR_TENSORS = (FREQUENCIES, SHORT, LONG)
TYPES = ("none", "linear", "yarn", "longrope")
# Llama 3.1 and 3.2 differ in the factor only; the other three are not in the file at all.
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def rope_scaling(
    header: GgufHeader, name: str, factors: Mapping[str, Array], rope: Rope
) -> dict[str, Any] | None:
    """What config.json has to say of the scaling; None where there is none.

    Args:
        header: of the file.
        name: of its architecture.
        factors: those of FACTOR_TENSORS that the file holds.
        rope: base, and how many numbers of a head are rotated.

    Raises:
        SourceError: a key or a tensor asks for what is not supported.
    """
    if rope.dim < 2:
        return None  # config.json is refused for it
    for tensor, values in factors.items():
        if values.shape != (rope.dim // 2,) or not (np.isfinite(values) & (values > 0)).all():
            raise SourceError(
                f"{header.label}: {tensor} is not a list of {rope.dim // 2} numbers above 0, one "
                "for each rotary pair; the file is damaged, fetch it again."
            )
    keys = _Keys(header, name)
    entry = _entry(keys, factors, rope)
    beta = keys.real("attention.temperature_scale", 0.0)
    if not beta:
        return entry
    if entry is None or entry["rope_type"] != "yarn":
        raise SourceError(
            f"{header.label}: {name}.attention.temperature_scale={beta:g} is not supported without "
            f"{name}.rope.scaling.type='yarn'."
        )
    return {**entry, QUERY_KEY: beta}


class _Keys:
    """Numbers of the metadata below an architecture's name."""

    def __init__(self, header: GgufHeader, name: str) -> None:
        self._header, self._name = header, name
        self.type = header.text(f"{name}.rope.scaling.type", "linear")
        if self.type not in TYPES:
            raise SourceError(
                f"{header.label}: {name}.rope.scaling.type={self.type!r} is not supported; only "
                f"{', '.join(TYPES)} are."
            )
        factor = self.real("rope.scaling.factor", self.real("rope.scale_linear", 1))
        self.factor = factor if factor and self.type != "none" else 1.0
        self.attention = self.real("rope.scaling.attn_factor", 1.0)
        length = header.integer(f"{name}.context_length")
        self.original = header.integer(f"{name}.rope.scaling.original_context_length", length)

    def real(self, key: str, default: float) -> float:
        """A number; `default` where it is not there."""
        return self._header.real(f"{self._name}.{key}", default)

    def above_0(self, key: str, default: float) -> float:
        """A number above 0."""
        value = self.real(key, default)
        if value <= 0:
            raise SourceError(
                f"{self._header.label}: {self._name}.{key}={value:g} is not above 0; the file is "
                "damaged."
            )
        return value


def _entry(keys: _Keys, factors: Mapping[str, Array], rope: Rope) -> dict[str, Any] | None:
    ones = np.ones(rope.dim // 2)
    if FREQUENCIES in factors:
        short = long = np.asarray(factors[FREQUENCIES], np.float64)
    else:
        short, long = (np.asarray(factors.get(each, ones), np.float64) for each in (SHORT, LONG))
    same = np.array_equal(short, long)
    if keys.type == "yarn":
        entry = _yarn(keys)
        extrapolated = keys.real("rope.scaling.yarn_ext_factor", 1.0)
        extrapolated = 1.0 if extrapolated < 0 else extrapolated  # llama.cpp's "not given"
        if extrapolated == 1 and same and (short == 1).all():
            return entry
        if rope.theta <= 1 or min(keys.factor, keys.original) <= 0:
            return entry  # config.json is refused for it
        divisors = _divisors(entry, rope, extrapolated)
        attention = entry["attention_factor"] if extrapolated else keys.attention
        return _longrope(keys, short * divisors, long * divisors, attention)
    if keys.attention == 1 and same:
        if (short == 1).all():
            linear = {"rope_type": "linear", "factor": keys.factor}
            return None if keys.factor == 1 else linear
        scaling = _llama3(short, rope) if keys.factor == 1 else None
        if scaling is not None:
            return scaling
    return _longrope(keys, short * keys.factor, long * keys.factor, keys.attention)


def _yarn(keys: _Keys) -> dict[str, Any]:
    # llama.cpp reads betas, multiplier and yarn_attn_factor for some architectures only; converters
    # write them for all, where the model has them.
    weight = keys.real("rope.scaling.yarn_log_multiplier", 0.0)
    size = 1 + 0.1 * math.log(max(keys.factor, 1))
    usual = size if weight == 0 else size / (1 + 0.1 * weight * math.log(max(keys.factor, 1)))
    return {
        "rope_type": "yarn",
        "factor": keys.factor,
        "original_max_position_embeddings": keys.original,
        "attention_factor": keys.real("rope.scaling.yarn_attn_factor", usual) * keys.attention,
        "beta_fast": keys.above_0("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": keys.above_0("rope.scaling.yarn_beta_slow", 1.0),
    }


def _divisors(entry: Mapping[str, Any], rope: Rope, extrapolated: float) -> Array:
    """What yarn divides each frequency by, where longrope has to say it."""
    scaling = RopeScaling(
        "yarn",
        entry["factor"],
        entry["original_max_position_embeddings"],
        beta_fast=entry["beta_fast"],
        beta_slow=entry["beta_slow"],
    )
    kept = yarn_kept(rope, scaling).astype(np.float64) * extrapolated
    return np.asarray(1 / ((1 - kept) / scaling.factor + kept))


def _longrope(keys: _Keys, short: Array, long: Array, attention: float) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "short_factor": short.tolist(),
        "long_factor": long.tolist(),
        "attention_factor": attention,
        "original_max_position_embeddings": keys.original,
    }


def _llama3(factors: Array, rope: Rope) -> dict[str, Any] | None:
    """The llama3 parameters that give these factors, or None.

    The slowest frequencies are divided by the full factor, so the last entry tells it.
    """
    factor = float(factors[-1])
    if factor <= 1 or rope.theta <= 1:
        return None
    expected = llama3_factors(rope.theta, rope.dim, factor)
    same = np.allclose(factors, expected, rtol=1e-4, atol=0)
    return {"rope_type": "llama3", "factor": factor, **LLAMA3} if same else None


def llama3_factors(theta: float, head_dim: int, factor: float) -> Array:
    """What Llama 3.1 divides each rotary frequency by, (head_dim / 2,) float64.

    Fast frequencies stay, slow ones are divided by `factor`, those between are blended linearly
    in the number of turns they make within the original context (Llama 3.1 model card).

    Args:
        theta: the base of the frequencies.
        head_dim: numbers of a head.
        factor: of slow frequencies.
    """
    frequencies = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    turns = LLAMA3["original_max_position_embeddings"] * frequencies / (2 * math.pi)
    low, high = LLAMA3["low_freq_factor"], LLAMA3["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray(1 / ((1 - kept) / factor + kept))
