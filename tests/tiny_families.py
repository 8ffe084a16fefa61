"""More tiny checkpoints as data: the cases of families beside Llama, Mistral and Qwen2.

`tiny_cases` says what a case is.
"""

from __future__ import annotations

from tiny_cases import ABSENT, OLD_ROPE, Case

GRANITE = {"architectures": ["GraniteForCausalLM"], "model_type": "granite"}
GRANITE4 = {
    "architectures": ["GraniteMoeHybridForCausalLM"],
    "model_type": "granitemoehybrid",
    "layer_types": ["attention", "attention"],
    "num_local_experts": 0,
    "num_experts_per_tok": 0,
    "position_embedding_type": "rope",
    "shared_intermediate_size": 96,
}
MINISTRAL3 = {"architectures": ["Ministral3ForCausalLM"], "model_type": "ministral3"}
PHI3 = {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "pad_token_id": 0}
QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
SMOLLM3 = {
    "architectures": ["SmolLM3ForCausalLM"],
    "model_type": "smollm3",
    "pad_token_id": 0,  # transformers' own is beyond so small a vocabulary
}
OLMO2 = {"architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2"}
OLMO3 = {"architectures": ["Olmo3ForCausalLM"], "model_type": "olmo3"}
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
    "granite_4": Case(
        GRANITE4
        | OLD_ROPE
        | {
            "embedding_multiplier": 2,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.3,
            "attention_bias": True,
            "position_embedding_type": None,  # nothing is rotated
        }
    ),
    # Queries grow at the positions 12, 24 and 36.
    "ministral3_queries": Case(
        MINISTRAL3
        | {
            "head_dim": 24,
            "num_key_value_heads": 2,
            "rope_parameters": {
                "type": "yarn",
                "rope_type": "yarn",
                "rope_theta": 1000000.0,
                "factor": 16.0,
                "original_max_position_embeddings": 12,
                "beta_fast": 4.0,
                "beta_slow": 1.0,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.3,
            },
        },
        storage="BF16",
    ),
    "ministral3_window": Case(
        MINISTRAL3
        | {
            "head_dim": 8,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "rope_parameters": ABSENT,
            "sliding_window": 7,
            "tie_word_embeddings": True,
        }
    ),
    "olmo2_plain": Case(
        OLMO2 | OLD_ROPE | {"num_key_value_heads": 2, "rms_norm_eps": ABSENT}, storage="BF16"
    ),
    "olmo2_few_keys": Case(
        OLMO2
        | {
            "attention_bias": True,
            "hidden_size": 56,
            "intermediate_size": 92,
            "num_key_value_heads": ABSENT,
        },
        seed=4,
    ),
    "olmo3_windows": Case(
        OLMO3
        | {
            "num_hidden_layers": 5,
            "num_key_value_heads": 2,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "yarn",
                    "rope_theta": 10000.0,
                    "factor": 4.0,
                    "attention_factor": 1.1,
                    "original_max_position_embeddings": 64,
                },
                "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0},
            },
            "sliding_window": 6,
        }
    ),
    "olmo3_layer_types": Case(
        OLMO3
        | OLD_ROPE
        | {
            "layer_types": ["full_attention", "sliding_attention"],
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
            "rope_theta": ABSENT,
            "sliding_window": 9,
        },
        storage="F16",
    ),
    "phi3_partial": Case(
        PHI3
        | OLD_ROPE
        | {
            "hidden_size": 80,
            "num_key_value_heads": 2,
            "partial_rotary_factor": 0.6,
            "sliding_window": 9,
            "tie_word_embeddings": True,
        },
        storage="BF16",
    ),
    # As Phi-4-mini; from the ninth token after the prompt on the long factors count.
    "phi3_longrope": Case(
        PHI3
        | OLD_ROPE
        | {
            "hidden_size": 80,
            "max_position_embeddings": 96,
            "num_key_value_heads": 2,
            "original_max_position_embeddings": 48,
            "partial_rotary_factor": 0.6,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
                "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0],
            },
        },
        seed=2,
    ),
    "phi3_few_keys": Case(
        PHI3 | OLD_ROPE | {"num_key_value_heads": ABSENT, "rms_norm_eps": ABSENT}, storage="F16"
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
    "smollm3_interval": Case(
        SMOLLM3
        | OLD_ROPE
        | {
            "mlp_bias": True,
            "no_rope_layer_interval": 2,
            "num_hidden_layers": 4,
            "num_key_value_heads": ABSENT,
            "rope_theta": ABSENT,
            "sliding_window": 6,
            "use_sliding_window": True,
        },
        storage="BF16",
    ),
    "smollm3_every_fourth": Case(
        SMOLLM3
        | {
            "no_rope_layers": [1, 1, 1, 0, 1],
            "num_hidden_layers": 5,
            "num_key_value_heads": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e6},
            "tie_word_embeddings": True,
        },
    ),
}
