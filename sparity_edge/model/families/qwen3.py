"""Qwen3, dense (Yang et al., 2025): a Llama with RMSNorm over every head of q and k."""

from __future__ import annotations

from sparity_edge.config.family import GGUF_UNSUPPORTED, Family, GgufNames
from sparity_edge.config.layer_steps import windows_in_use

FAMILY = Family(
    "qwen3",
    ("Qwen3ForCausalLM",),
    defaults={
        "head_dim": 128,
        "max_position_embeddings": 32768,
        "num_key_value_heads": 32,
        "sliding_window": 4096,
        "max_window_layers": 28,
    },
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    qk_norm="heads",
    windows=windows_in_use,
    refused=("mlp_bias",),
    gguf=GgufNames(
        "qwen3",
        tensors={"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"},
        unsupported=(*GGUF_UNSUPPORTED, "attention.sliding_window"),
    ),
)
