"""Qwen2 (Yang et al., 2024): a Llama with biases on q, k and v, and windows in its upper layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparity_edge.config.family import GGUF_UNSUPPORTED, Family, GgufNames
from sparity_edge.config.layer_steps import no_windows, sliding_windows
from sparity_edge.config.values import read_boolean


def _windows(config: Mapping[str, Any], layers: int) -> tuple[int | None, ...]:
    windowed = config.get("sliding_window") is not None
    if not windowed or not read_boolean(config, "use_sliding_window", default=False):
        return no_windows(config, layers)
    return sliding_windows(config, layers, "max_window_layers")


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
    windows=_windows,
    refused=("mlp_bias",),
    gguf=GgufNames("qwen2", unsupported=(*GGUF_UNSUPPORTED, "attention.sliding_window")),
)
