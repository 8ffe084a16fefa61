"""Phi-3, 3.5 and 4 (Microsoft, 2024): a Llama whose q, k and v are stored as one, gate and up too.

Of each head a part may be rotated (Phi-4-mini). The vision and mixture models are others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparity_edge.config.family import Family, GgufNames
from sparity_edge.config.layer_steps import sliding_windows
from sparity_edge.config.rope_scaling import LENGTH_KEY


def _with_longrope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Some files of Phi-3 call longrope yarn, which has no short_factor."""
    scaling = config.get("rope_scaling")
    if not isinstance(scaling, Mapping) or "short_factor" not in scaling:
        return config
    length = config.get(LENGTH_KEY) or scaling.get(LENGTH_KEY) or 4096
    scaling = {**scaling, "rope_type": "longrope"}
    return {**config, "rope_scaling": scaling, LENGTH_KEY: length}


FAMILY = Family(
    "phi3",
    ("Phi3ForCausalLM",),
    defaults={"max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
    windows=sliding_windows,
    refused=("attention_bias", "mlp_bias", "lm_head_bias"),
    plain=_with_longrope,
    partial_rope=True,
    stored={
        "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    },
    gguf=GgufNames(
        "phi3",
        keys={"sliding_window": "attention.sliding_window"},
        tensors={"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"},
    ),
)
