"""The tiny checkpoints as data: what each config.json says and how the files are written.

Together they cover every feature of a config that the decoder runs; `tiny` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

TOKENIZER_SIZE = 288


@dataclass(frozen=True)
class Case:
    """One checkpoint: what its config.json says, and how its files are written.

    `config` is merged over `BASE`; a value of `ABSENT` removes the key.
    """

    config: Mapping[str, Any]
    storage: str = "F32"
    shards: int = 1
    template: str = "file"  # "file": chat_template.jinja; "config": tokenizer_config.json; "none"
    adds_bos: bool = False  # the tokenizer puts <s> in front of a text
    generation: Mapping[str, Any] = field(default_factory=lambda: {"eos_token_id": 2})
    extra: tuple[str, ...] = ()  # tensors that a loader has to ignore
    seed: int = 0


ABSENT = object()
BASE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "vocab_size": TOKENIZER_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
OLD_ROPE = {"rope_parameters": ABSENT, "rope_theta": 10000.0, "rope_scaling": None}
# With head_dim 16 the wavelengths 6, 20, 63, 199 ... lie below, between and above 16 and 64.
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES: dict[str, Case] = {
    "llama_tied": Case({"tie_word_embeddings": True}, extra=("lm_head.weight",)),
    "llama_untied": Case(
        OLD_ROPE,
        storage="BF16",
        template="config",
        adds_bos=True,
        extra=("model.layers.0.self_attn.rotary_emb.inv_freq",),
    ),
    "llama_gqa": Case(
        {
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        },
        storage="F16",
        generation={"eos_token_id": [2, 4, 206], "bos_token_id": 1},
    ),
    "llama_mqa": Case(OLD_ROPE | {"num_key_value_heads": 1, "rope_theta": 1e6}),
    "llama_head_dim": Case({"head_dim": 24, "num_key_value_heads": 2}),
    "llama_biases": Case({"attention_bias": True, "mlp_bias": True}, storage="BF16"),
    "llama_llama3": Case({"rope_parameters": LLAMA3 | {"rope_theta": 10000.0}}),
    "llama_llama3_old": Case(OLD_ROPE | {"rope_scaling": LLAMA3}),
    "llama_linear": Case(
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}, seed=1
    ),
    "llama_linear_old": Case(OLD_ROPE | {"rope_scaling": {"type": "linear", "factor": 2.5}}),
    "llama_odd": Case(
        {
            "hidden_size": 100,
            "intermediate_size": 92,
            "num_attention_heads": 5,
            "num_key_value_heads": 1,
            "vocab_size": 301,
        },
        storage="BF16",
    ),
    "llama_small": Case(
        {
            "hidden_size": 36,
            "intermediate_size": 50,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
        },
        template="none",
    ),
    "llama_sharded": Case({"num_hidden_layers": 3}, storage="BF16", shards=3),
    "llama_few_keys": Case(
        OLD_ROPE
        | {
            "architectures": ABSENT,
            "hidden_act": ABSENT,
            "num_key_value_heads": ABSENT,
            "rms_norm_eps": ABSENT,
            "rope_theta": ABSENT,
            "tie_word_embeddings": ABSENT,
        },
        generation={},
    ),
    "llama_relu": Case({"hidden_act": "relu", "num_key_value_heads": 2}, storage="BF16"),
    "mistral_window": Case(
        MISTRAL | {"num_key_value_heads": 2, "sliding_window": 7}, storage="BF16", adds_bos=True
    ),
    "mistral_nemo": Case(
        MISTRAL | {"num_key_value_heads": 2, "head_dim": 20, "sliding_window": None}
    ),
    "mistral_relu": Case(
        MISTRAL
        | {
            "hidden_act": "relu",
            "hidden_size": 96,
            "intermediate_size": 330,
            "num_key_value_heads": 2,
            "sliding_window": 9,
        },
        storage="F16",
        extra=("model.layers.0.mlp.predictor.fc1.weight", "model.layers.1.predictor.fc2.weight"),
    ),
    "mistral_few_keys": Case(
        MISTRAL | {"num_attention_heads": 8, "num_key_value_heads": ABSENT}, storage="F16"
    ),
    "qwen2_plain": Case(
        QWEN2
        | OLD_ROPE
        | {
            "num_key_value_heads": 2,
            "use_sliding_window": False,
            "sliding_window": 5,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
        }
    ),
    "qwen2_window": Case(
        QWEN2
        | {
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "use_sliding_window": True,
            "sliding_window": 6,
            "max_window_layers": 1,
        },
        storage="BF16",
    ),
    "qwen2_layer_types": Case(
        QWEN2
        | {
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
}
# What is rotated otherwise: rope_settings.py has every setting, without a model.
CASES |= {
    "rope_yarn": Case(
        QWEN2
        | {
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 24,
                "mscale": 1.0,
                "mscale_all_dim": 0.7,
            },
        },
        storage="BF16",
    ),
    # Within the prompt the short factors count, and from the ninth token after it on the long ones.
    "rope_longrope": Case(
        {
            "max_position_embeddings": 96,
            "num_key_value_heads": 2,
            "rope_parameters": {
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "original_max_position_embeddings": 48,
                "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
                "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 8.0],
            },
        },
        seed=2,
    ),
}
# Not among them, as its logits depend on what is read at once: 24 positions are plain.
DYNAMIC = Case(
    {
        "max_position_embeddings": 24,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    }
)
PLANNED = next(name for name in CASES if name.startswith("qwen2"))  # what plans are tried on
