"""OLMo 2 (Walsh et al., 2024): a Llama that norms what each half of a layer gives, and q and k.

A norm of q or k is over all heads together.
"""

from __future__ import annotations

from sparity_edge.config.family import Family, GgufNames
from sparity_edge.config.norms import AFTER

GGUF_NORMS = {
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
FAMILY = Family(
    "olmo2",
    ("Olmo2ForCausalLM",),
    defaults={"max_position_embeddings": 2048, "rms_norm_eps": 1e-5},
    qkv_bias="attention_bias",
    o_bias="attention_bias",
    norms=AFTER,
    qk_norm="all",
    refused=("mlp_bias",),
    gguf=GgufNames("olmo2", tensors=GGUF_NORMS),
)
