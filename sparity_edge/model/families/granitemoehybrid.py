"""Granite 4.0 (IBM, 2025) where it is dense: Granite with other names for its FFN.

The class is that of the hybrids, too; models with mamba layers or experts are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparity_edge.config.family import Family
from sparity_edge.config.layer_steps import rope_where
from sparity_edge.config.scales import granite_scales
from sparity_edge.config.values import read_integer, show
from sparity_edge.errors import ConfigError

MOST_EXPERTS = 1 << 16


def _as_dense(config: Mapping[str, Any]) -> Mapping[str, Any]:
    experts = read_integer(config, "num_local_experts", MOST_EXPERTS, least=0)
    kinds = config.get("layer_types", config.get("layers_block_type"))
    if not isinstance(kinds, list) or any(k not in ("attention", "full_attention") for k in kinds):
        raise ConfigError(
            f"config.json: layer_types={show(kinds)} asks for mamba layers (as Granite 4.0 models "
            "whose names have an -h do), which are not supported; take a dense Granite."
        )
    if experts:
        raise ConfigError(
            f"config.json: num_local_experts={experts} asks for a mixture of experts, which is not "
            "supported; take a dense Granite."
        )
    rotated = config.get("position_embedding_type") == "rope"
    width = config.get("shared_intermediate_size")
    return {**config, "intermediate_size": width, "layer_types": None, "use_rope": rotated}


FAMILY = Family(
    "granitemoehybrid",
    ("GraniteMoeHybridForCausalLM",),
    defaults={
        "max_position_embeddings": 2048,
        "num_local_experts": 8,
        "shared_intermediate_size": 1024,
    },
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    layers_without_rope=rope_where("use_rope"),
    scales=granite_scales,
    plain=_as_dense,
    stored={
        "shared_mlp.input_linear": ("mlp.gate_proj", "mlp.up_proj"),
        "shared_mlp.output_linear": ("mlp.down_proj",),
    },
)
