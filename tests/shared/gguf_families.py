"""Tiny checkpoints of any family as GGUF files, as llama.cpp's converter would write them.

Knows nothing of sparity_edge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf_files
import numpy as np
import tiny
from gguf import GGMLQuantizationType as Kind

# Keys of config.json by those below the architecture's name; numbers of which all families have.
KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
STEMS = {module: stem for stem, (module, _) in gguf_files.BLOCK.items()}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
GRANITE = {
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier",
    "logit_scale": "logits_scaling",
}
WINDOW = {"attention.sliding_window": "sliding_window"}
YARN = {
    "attention.temperature_scale": "llama_4_scaling_beta",
    "rope.scaling.type": "rope_type",
    "rope.scaling.factor": "factor",
    "rope.scaling.original_context_length": "original_max_position_embeddings",
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
    "rope.scaling.yarn_log_multiplier": "mscale_all_dim",
}
FUSED = {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}
AFTER = {
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "post_attention_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
# What llama.cpp calls a family, by the first word of its cases, and its names of modules that a
# Llama has not.
ARCHITECTURES: dict[str, tuple[str, Mapping[str, str]]] = {
    "llama": ("llama", {}),
    "mistral": ("llama", {}),
    "ministral3": ("mistral3", {}),
    "qwen2": ("qwen2", {}),
    "granite": ("granite", {}),
    "phi3": ("phi3", FUSED),
    "qwen3": ("qwen3", NORMS),
    "smollm3": ("smollm3", {}),
    "olmo2": ("olmo2", AFTER),
}


def metadata(architecture: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What llama.cpp's converter writes about any decoder."""
    head_dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    known = KEYS | GRANITE | (WINDOW if architecture == "phi3" else {})
    keys = {key: config[name] for key, name in known.items() if name in config}
    rotated = round(config.get("partial_rotary_factor", 1) * head_dim)
    keys |= {"rope.freq_base": theta, "rope.dimension_count": rotated}
    keys |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
    original = config.get("original_max_position_embeddings")
    if original is not None:
        usual = math.sqrt(1 + math.log(config["max_position_embeddings"] / original, original))
        keys |= {"rope.scaling.original_context_length": original}
        keys |= {"rope.scaling.attn_factor": usual}
    if architecture == "mistral3":
        keys |= {key: config["rope_parameters"][name] for key, name in YARN.items()}
    return {f"{architecture}.{key}": value for key, value in keys.items()}


def gguf_name(name: str, stems: Mapping[str, str]) -> str:
    """`model.layers.0.self_attn.q_proj.weight` -> `blk.0.attn_q.weight`."""
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    layer, _, inside = module.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{stems[inside]}.{kind}"


def write(
    path: Path,
    name: str,
    kind_of: Callable[[str, np.ndarray], Kind] = lambda *_: Kind.F32,
    *,
    changes: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write the case `tiny.CASES[name]` as a GGUF file.

    Args:
        path: where to.
        name: of the case.
        kind_of: the number type of a tensor, by its name and values.
        changes: to its config.json.
        more: metadata.
        options: further ones of `gguf_files.write`.
    """
    case = tiny.CASES[name]
    architecture, stems = ARCHITECTURES[tiny.family_of(name)]
    tensors = {
        gguf_name(tensor, {**STEMS, **stems}): values.astype(np.float32)
        for tensor, values in tiny.make_tensors(case).items()
        if tensor not in case.extra
    }
    config = {**tiny.config_of(case), **(changes or {})}
    kinds = {tensor: kind_of(tensor, values) for tensor, values in tensors.items()}
    for length in ("long", "short"):
        factors = (config.get("rope_scaling") or {}).get(f"{length}_factor")
        if factors:
            tensors[f"rope_factors_{length}.weight"] = np.array(factors, np.float32)
    return gguf_files.write(
        path,
        architecture=architecture,
        weights=tensors,
        kinds=kinds,
        metadata=metadata(architecture, config) | (more or {}),
        **options,
    )
