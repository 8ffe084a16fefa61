"""What a model has that no family here does: the reason that a refusal gives, beside the name.

Most of it is told by keys, of config.json or of the metadata of a GGUF file alike, so that models
to come are covered; the rest stands by name. Nothing here decides whether a model is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sparity_edge.config.activation import NAMES
from sparity_edge.config.values import show

# What it is -> keys that say so where they are neither null, false nor 0.
_SIGNS: Mapping[str, tuple[str, ...]] = {
    "a mixture of experts": (
        *("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
        *("num_experts_per_tok", "expert_count"),
    ),
    "latent attention": ("kv_lora_rank", "attention.kv_lora_rank"),
    "state-space layers": ("mamba_d_state", "ssm_state_size", "state_size", "ssm.state_size"),
    "block-sparse attention": ("blocksparse_block_size", "attention.blocksparse_block_size"),
    "soft caps": (
        *("attn_logit_softcapping", "final_logit_softcapping"),
        *("attn_logit_softcap", "final_logit_softcap"),
    ),
    "LayerNorm": (
        *("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
        "attention.layer_norm_epsilon",
    ),
    "images or sound": ("vision_config", "audio_config"),
}
_KINDS = ("full_attention", "sliding_attention", "attention")
_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function")
# What keys do not tell, by the beginning of model_type or general.architecture.
_BY_NAME = {
    "gemma": "norms and an embedding of Gemma's own",
    "glm4": "norms after the halves of a layer and pairs of rotation side by side",
    "chatglm": "pairs of rotation side by side",
    "ernie4": "pairs of rotation side by side",
    "exaone4": "norms after the halves of a layer",
    "granite_swa": "sinks of attention",
    "gpt_oss": "sinks of attention",
    "gpt-oss": "sinks of attention",
    "hunyuan": "norms of q and k behind the rotation",
    "internlm2": "q, k and v interleaved in one matrix",
    "phi3_v": "images or sound",
    "phi3small": "gates by GEGLU",
    "phi4mm": "images or sound",
}


def missing(name: str, config: Mapping[str, Any]) -> str:
    """What a model needs and is missing here, as the end of a sentence; empty where nobody knows.

    Args:
        name: its model_type, or general.architecture of its GGUF file.
        config: the content of config.json, or metadata below the architecture's name.
    """
    found = list(dict.fromkeys(_reasons(name, config)))
    if not found:
        return ""
    last = found.pop()
    return f": it has {', '.join(found)} and {last}" if found else f": it has {last}"


def _reasons(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    inner = config.get("text_config")
    every = {**config, **inner} if isinstance(inner, Mapping) else config
    yield from (reason for start, reason in _BY_NAME.items() if name.startswith(start))
    for reason, keys in _SIGNS.items():
        if any(_says_so(every.get(key)) for key in keys):
            yield reason
    kinds = every.get("layer_types")
    for kind in kinds if isinstance(kinds, list) else ():
        if isinstance(kind, str) and kind not in _KINDS:
            yield f"layers of type {show(kind)}"
            break
    for activation in (every.get(key) for key in _ACTIVATIONS):
        if isinstance(activation, str) and activation not in (*NAMES, "swish", "fat_relu"):
            yield f"the activation {show(activation)}"


def _says_so(value: object) -> bool:
    return isinstance(value, bool | int | float | Mapping) and bool(value)
