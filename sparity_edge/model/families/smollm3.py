"""SmolLM3 (Bakouch et al., 2025): a Llama that rotates q and k in three layers of four."""

from __future__ import annotations

from sparity_edge.config.family import Family, GgufNames
from sparity_edge.config.layer_steps import rope_in_layers, windows_without_rope

FAMILY = Family(
    "smollm3",
    ("SmolLM3ForCausalLM",),
    defaults={
        "max_position_embeddings": 32768,
        "num_key_value_heads": 4,
        "rope_theta": 2000000.0,
        "tie_word_embeddings": True,
    },
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    mlp_bias="mlp_bias",
    windows=windows_without_rope,
    layers_without_rope=rope_in_layers,
    # llama.cpp rotates by an interval of 4, whatever a file says, which has no key for another.
    gguf=GgufNames("smollm3", interleaved=True),
)
