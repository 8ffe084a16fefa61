"""Llama (Touvron et al., 2023): the plain decoder, with biases where config.json asks for them."""

from __future__ import annotations

from sparity_edge.config.family import Family, GgufNames

FAMILY = Family(
    "llama",
    ("LlamaForCausalLM",),
    defaults={"max_position_embeddings": 2048},
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    mlp_bias="mlp_bias",
    gguf=GgufNames("llama", interleaved=True),
)
