"""Rotary scaling of GGUF files: tables against what llama.cpp computes of the same keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gguf_files
import numpy as np
import pytest
from gguf_files import HEAD_DIM

from converters.sources import open_source
from converters.sources.gguf_rope import llama3_factors
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.errors import SparityError
from sparity_edge.model.rotary import RopeTables

PAIRS = HEAD_DIM // 2
ODD = np.linspace(1, 9, PAIRS, dtype=np.float32)
EVEN = np.linspace(0.5, 2, PAIRS, dtype=np.float32)
FREQUENCIES, SHORT, LONG = (
    f"rope_{name}.weight" for name in ("freqs", "factors_short", "factors_long")
)


def llama_cpp(keys: dict[str, Any], factors: np.ndarray, positions: int) -> np.ndarray:
    """Cosines and sines of ggml's rope_yarn, (positions, head_dim), in float64.

    ext_factor, attn_factor and freq_scale are set up as llama_context does it.
    """
    kind, scale = keys.get("type", "linear"), 1 / (keys.get("factor") or 1)
    scale = 1.0 if kind == "none" else scale
    extrapolated = keys.get("yarn_ext_factor", -1.0)
    if extrapolated < 0:
        extrapolated = 1.0 if kind == "yarn" else 0.0
    attention = keys.get("attn_factor", 1.0)
    if extrapolated:
        weight = keys.get("yarn_log_multiplier", 0)
        sizes = [0.1 * each * np.log(1 / scale) + 1.0 if scale < 1 else 1.0 for each in (1, weight)]
        attention *= keys.get("yarn_attn_factor", sizes[0] / (sizes[1] if weight else 1))
    original = keys.get("original_context_length", 128)
    bounds = [
        HEAD_DIM * np.log(original / (keys.get(beta, usual) * 2 * np.pi)) / (2 * np.log(10000.0))
        for beta, usual in (("yarn_beta_fast", 32.0), ("yarn_beta_slow", 1.0))
    ]
    low, high = max(0, np.floor(bounds[0])), min(HEAD_DIM - 1, np.ceil(bounds[1]))
    ramp = (np.arange(PAIRS) - low) / max(0.001, high - low)
    mix = (1 - np.clip(ramp, 0, 1)) * extrapolated
    theta = np.arange(positions)[:, None] * 10000.0 ** (-np.arange(PAIRS) / PAIRS) / factors
    theta = scale * theta * (1 - mix) + theta * mix
    return np.concatenate([np.cos(theta), np.sin(theta)], axis=1) * attention


def config_of(
    write: Callable[..., str], keys: dict[str, Any], factors: dict[str, Any], **more: Any
) -> ModelConfig:
    metadata = {f"llama.rope.scaling.{key}": value for key, value in keys.items()}
    path = write(weights=gguf_files.tensors() | factors, metadata=metadata | more)
    with open_source(path) as source:
        return source.config


YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 32}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {
    "none": ({"type": "none", "factor": 4.0}, {}, None),
    "linear": ({"factor": 4.0}, {}, "linear"),
    "linear of 0": ({"type": "linear", "factor": 0.0}, {}, None),
    "attention alone": ({"attn_factor": 1.25}, {}, "longrope"),
    "ones": ({}, {FREQUENCIES: np.ones(PAIRS, np.float32)}, None),
    "any factors": ({}, {FREQUENCIES: ODD}, "longrope"),
    "any factors, linear": ({"type": "linear", "factor": 2.0}, {FREQUENCIES: ODD}, "longrope"),
    "yarn": (YARN, {}, "yarn"),
    "yarn, weights": ({**YARN, "yarn_log_multiplier": 0.5, "attn_factor": 1.1}, {}, "yarn"),
    "yarn, betas": ({**YARN, "yarn_beta_fast": 8.0, "yarn_beta_slow": 2.0}, {}, "yarn"),
    "yarn, attention factor": ({**YARN, "yarn_attn_factor": 1.2}, {}, "yarn"),
    "yarn, not given": ({**YARN, "yarn_ext_factor": -1.0}, {}, "yarn"),
    "yarn in part": ({**YARN, "yarn_ext_factor": 0.5}, {}, "longrope"),
    "yarn, not at all": ({**YARN, "yarn_ext_factor": 0.0}, {}, "longrope"),
    "yarn, any factors": (YARN, {FREQUENCIES: ODD}, "longrope"),
    "longrope": (
        {"type": "longrope", "attn_factor": 1.19, "original_context_length": 32},
        {SHORT: ODD, LONG: EVEN},
        "longrope",
    ),
    "longrope, no type": ({"original_context_length": 32}, {SHORT: ODD, LONG: EVEN}, "longrope"),
    "longrope, no short": ({"original_context_length": 32}, {LONG: EVEN}, "longrope"),
    "longrope, both": ({"type": "longrope"}, {FREQUENCIES: ODD, LONG: EVEN}, "longrope"),
}


@pytest.mark.parametrize("name", CASES)
def test_tables_are_those_of_llama_cpp(write: Callable[..., str], name: str) -> None:
    keys, factors, kind = CASES[name]
    config = config_of(write, keys, factors)
    scaling = config.rope_scaling
    assert (None if scaling is None else scaling.rope_type) == kind
    for positions, by_length in ((32, SHORT), (33, LONG)):
        divisors = factors.get(FREQUENCIES, factors.get(by_length, np.ones(PAIRS)))
        tables = RopeTables(config, positions)
        found = tables.of_keys(0, tables.stretch(positions))
        np.testing.assert_allclose(found, llama_cpp(keys, divisors, positions), atol=1e-5)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_recognised(write: Callable[..., str], factor: float) -> None:
    factors = {FREQUENCIES: rope_factors(factor)}
    scaling = config_of(write, {}, factors, **{"llama.rope.freq_base": 500000.0}).rope_scaling
    assert scaling is not None
    assert (scaling.rope_type, scaling.factor) == ("llama3", factor)
    assert scaling.original_max_position_embeddings == 8192


def rope_factors(factor: float) -> np.ndarray:
    """The loop of the Llama 3.1 model card, with the base of Llama 3."""
    result = []
    for pair in range(HEAD_DIM // 2):
        wavelength = 2 * np.pi * 500000.0 ** (2 * pair / HEAD_DIM)
        if wavelength < 8192 / 4:
            result.append(1.0)
        elif wavelength > 8192:
            result.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / 3
            result.append(1 / ((1 - smooth) / factor + smooth))
    np.testing.assert_allclose(result, llama3_factors(500000.0, HEAD_DIM, factor), rtol=1e-12)
    return np.array(result, np.float32)


BAD = ODD.copy()
BAD[3] = np.nan
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "type": ({"type": "ntk"}, {}, r"scaling\.type='ntk' .* none, linear, yarn, longrope are"),
    "factor": ({"factor": -2.0}, {}, "factor=-2.0"),
    "yarn's factor": ({**YARN, "factor": -2.0}, {}, "factor=-2.0"),
    "beta": ({**YARN, "yarn_beta_slow": 0.0}, {}, "yarn_beta_slow=0 is not above 0"),
    "no numbers": ({}, {FREQUENCIES: BAD}, r"rope_freqs\.weight is not a list of 32 numbers"),
    "too few": ({}, {LONG: ODD[1:]}, r"rope_factors_long\.weight is not a list of 32"),
    "a matrix": ({}, {SHORT: np.ones((2, 32), np.float32)}, "not a list of float32 numbers"),
    "length": ({**YARN, "original_context_length": 0}, {FREQUENCIES: ODD}, "embeddings=0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(write: Callable[..., str], name: str) -> None:
    keys, factors, words = REFUSED[name]
    with pytest.raises(SparityError, match=words):
        config_of(write, keys, factors)


def test_growing_queries_need_yarn(write: Callable[..., str]) -> None:
    beta = {"llama.attention.temperature_scale": 0.1}
    scaling = config_of(write, YARN, {}, **beta).rope_scaling
    assert scaling is not None
    assert scaling.query_beta == 0.1
    with pytest.raises(SparityError, match=r"temperature_scale=0\.1 is not supported without"):
        config_of(write, {}, {}, **beta)
