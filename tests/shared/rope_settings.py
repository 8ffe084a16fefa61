"""Rotary settings as data: what config.json may say of rope, and lengths of text to look at.

golden/make_rope_goldens.py writes down what transformers computes for each. With head_dim 16 and
base 10000 the wavelengths 6, 20, 63, 199 ... lie on all sides of the lengths below.
"""

from __future__ import annotations

from typing import Any

HEAD_DIM = 16
CONTEXT = 256
PROMPT = 30  # tokens of the dynamic model that are read at once
LENGTHS = (64, 65, 256, 257, 1000)
BASE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 4 * HEAD_DIM,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
}
SHORT = [1 + 0.1 * pair for pair in range(HEAD_DIM // 2)]
LONG = [2.0 + pair for pair in range(HEAD_DIM // 2)]
LONGROPE = {
    "rope_type": "longrope",
    "original_max_position_embeddings": 64,
    "short_factor": SHORT,
    "long_factor": LONG,
}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "original_max_position_embeddings": 32}
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 500000.0},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {**LLAMA3, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "llama3, low = high": {**LLAMA3, "low_freq_factor": 1.0, "high_freq_factor": 1.0},
    "llama3, low above high": {**LLAMA3, "low_freq_factor": 4.0, "high_freq_factor": 1.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "dynamic, other base": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e6},
    "yarn": {**YARN, "factor": 4.0},
    "yarn, no original length": {"rope_type": "yarn", "factor": 4.0},
    "yarn, no factor": {**YARN, "factor": None},
    "yarn, other base": {**YARN, "factor": 8.0, "rope_theta": 1e6},
    "yarn, mscale": {**YARN, "factor": 8.0, "mscale": 0.7, "mscale_all_dim": 1.3},
    "yarn, mscale 0": {**YARN, "factor": 8.0, "mscale": 0, "mscale_all_dim": 1.3},
    "yarn, not truncated": {**YARN, "factor": 8.0, "truncate": False},
    "yarn, betas": {**YARN, "factor": 8.0, "beta_fast": 4, "beta_slow": 0.5},
    "yarn, attention factor": {**YARN, "factor": 8.0, "attention_factor": 1.2},
    "yarn, factor below 1": {**YARN, "factor": 0.5},
    "longrope": {**LONGROPE, "factor": 4.0},
    "longrope, no factor": LONGROPE,
    "longrope, factor below 1": {**LONGROPE, "factor": 0.5},
    "longrope, attention factor": {**LONGROPE, "factor": 2.5, "attention_factor": 1.19},
}
