"""ProSparse Llama (Song et al., 2024): a Llama whose gates go through FATReLU."""

from __future__ import annotations

from sparity_edge.config.family import Family

FAMILY = Family(
    "sparsellama",
    ("SparseLlamaForCausalLM",),
    defaults={"max_position_embeddings": 2048, "hidden_act": "fatrelu"},
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    mlp_bias="mlp_bias",
)
