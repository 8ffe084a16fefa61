"""Mistral (Jiang et al., 2023): a Llama whose layers attend through a sliding window."""

from __future__ import annotations

from sparity_edge.config.family import Family, GgufNames
from sparity_edge.config.layer_steps import sliding_windows

FAMILY = Family(
    "mistral",
    ("MistralForCausalLM",),
    defaults={
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    windows=sliding_windows,
    refused=("attention_bias", "mlp_bias"),
    # Only Mistral 7B v0.1 among the models that go by `llama` attends through a window.
    gguf=GgufNames(
        "llama",
        interleaved=True,
        marked_by="attention.sliding_window",
        keys={"sliding_window": "attention.sliding_window"},
    ),
)
