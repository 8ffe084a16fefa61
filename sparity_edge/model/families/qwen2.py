"""Qwen2 (Yang et al., 2024): a Llama with biases on q, k and v, and windows in its upper layers."""

from __future__ import annotations

from sparity_edge.config.family import GGUF_UNSUPPORTED, Family, GgufNames
from sparity_edge.config.layer_steps import windows_in_use

FAMILY = Family(
    "qwen2",
    ("Qwen2ForCausalLM",),
    defaults={
        "max_position_embeddings": 32768,
        "num_key_value_heads": 32,
        "sliding_window": 4096,
        "max_window_layers": 28,
    },
    qkv_bias=True,
    windows=windows_in_use,
    refused=("mlp_bias",),
    gguf=GgufNames("qwen2", unsupported=(*GGUF_UNSUPPORTED, "attention.sliding_window")),
)
