"""More tiny checkpoints as data: the cases of families beside Llama, Mistral and Qwen2.

`tiny_cases` says what a case is.
"""

from __future__ import annotations

from tiny_cases import OLD_ROPE, Case

GRANITE = {"architectures": ["GraniteForCausalLM"], "model_type": "granite"}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
CASES: dict[str, Case] = {
    "granite_constants": Case(
        GRANITE
        | {
            "num_key_value_heads": 2,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.4,
            "attention_multiplier": 0.6,
            "logits_scaling": 1.5,
        },
        storage="BF16",
    ),
    "qwen3_plain": Case(
        QWEN3
        | OLD_ROPE
        | {
            "head_dim": 40,
            "num_key_value_heads": 2,
            "use_sliding_window": False,
            "sliding_window": 5,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
        }
    ),
    "qwen3_window": Case(
        QWEN3
        | {
            "attention_bias": True,
            "head_dim": 16,
            "num_hidden_layers": 3,
            "num_key_value_heads": 1,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 1,
        },
        storage="BF16",
    ),
}
