"""Granite 3.x and 4.1 (IBM, 2024): a Llama with constants on its vectors and scores."""

from __future__ import annotations

from sparity_edge.config.family import Family, GgufNames
from sparity_edge.config.layer_steps import rope_where
from sparity_edge.config.scales import granite_scales

FAMILY = Family(
    "granite",
    ("GraniteForCausalLM",),
    defaults={"max_position_embeddings": 2048},
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    mlp_bias="mlp_bias",
    layers_without_rope=rope_where("use_rope"),
    scales=granite_scales,
    gguf=GgufNames(
        "granite",
        interleaved=True,
        keys={
            "embedding_multiplier": "embedding_scale",
            "residual_multiplier": "residual_scale",
            "attention_multiplier": "attention.scale",
            "logits_scaling": "logit_scale",
            "use_rope": "rope.scaling.finetuned",  # where it is there and false, nothing is rotated
        },
    ),
)
