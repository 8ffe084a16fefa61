"""Bamboo and TurboSparse (Song et al., 2024): a Mistral whose gate and up both go through ReLU.

Checkpoints may hold predictors of which neurons are active; they are not read, as exact skipping
needs none.
"""

from __future__ import annotations

from sparity_edge.config.family import Family
from sparity_edge.config.layer_steps import sliding_windows

FAMILY = Family(
    "bamboo",
    ("BambooForCausalLM",),
    defaults={
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": None,
        "hidden_act": "relu",
    },
    windows=sliding_windows,
    activated_up=True,
    refused=("attention_bias", "mlp_bias"),
)
