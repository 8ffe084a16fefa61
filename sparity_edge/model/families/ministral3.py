"""Ministral 3 (Mistral AI, 2025): a Mistral with yarn, and queries that grow with the position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparity_edge.config.family import Family, GgufNames
from sparity_edge.config.layer_steps import sliding_windows
from sparity_edge.config.rope_scaling import QUERY_KEY
from sparity_edge.config.values import show
from sparity_edge.errors import ConfigError

# What transformers takes where nothing is said of rope; from numbers of the 8B model.
ROPE = {
    "rope_type": "yarn",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    QUERY_KEY: 0.1,
}


def _plain(config: Mapping[str, Any]) -> Mapping[str, Any]:
    entry = config.get("rope_scaling") or config.get("rope_parameters") or ROPE
    kind = entry.get("rope_type") or entry.get("type") if isinstance(entry, Mapping) else "yarn"
    if kind != "yarn" and entry.get(QUERY_KEY):
        raise ConfigError(
            f"config.json: {QUERY_KEY}={show(entry[QUERY_KEY])} with rope_type={show(kind)} is not "
            "supported; only yarn is."
        )
    # transformers windows all layers alike, whatever layer_types says.
    return {**config, "rope_scaling": entry, "layer_types": None}


FAMILY = Family(
    "ministral3",
    ("Ministral3ForCausalLM",),
    defaults={
        "head_dim": 128,
        "max_position_embeddings": 262144,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
    },
    windows=sliding_windows,
    plain=_plain,
    refused=("attention_bias", "mlp_bias"),
    gguf=GgufNames("mistral3", interleaved=True),
)
