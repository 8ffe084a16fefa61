"""MiniCPM and MiniCPM-S (Hu et al., Song et al., 2024): a Llama with constants on its vectors."""

from __future__ import annotations

from sparity_edge.config.family import Family
from sparity_edge.config.scales import minicpm_scales

FAMILY = Family(
    "minicpm",
    ("MiniCPMForCausalLM",),
    defaults={"max_position_embeddings": 2048, "tie_word_embeddings": True},
    scales=minicpm_scales,
    refused=("attention_bias", "mlp_bias"),
)
