"""A Llama decoder in plain NumPy and float64, with the constants and activations of its relatives.

What models with code of their own compute is written down here from their papers, apart from
sparity_edge: transformers does not have them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def normed(x: Array, weight: Array, epsilon: float) -> Array:
    """RMSNorm by row."""
    return np.asarray(x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon) * weight)


def rotated(x: Array) -> Array:
    """x (positions, heads, head_dim), its pairs rotated as in the paper (Su et al., 2021)."""
    positions, _, size = x.shape
    angles = np.arange(positions)[:, None] * 10000.0 ** (-np.arange(0, size, 2) / size)
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., : size // 2], x[..., size // 2 :]
    return np.concatenate([a * cosine - b * sine, b * cosine + a * sine], axis=-1)


def activated(gate: Array, config: Mapping[str, Any]) -> Array:
    """Gates after `hidden_act`."""
    if config["hidden_act"] == "silu":
        return np.asarray(gate / (1 + np.exp(-gate)))
    limit = config["hidden_act_param"] if config["hidden_act"] == "fatrelu" else 0.0
    return np.asarray(np.where(gate > limit, gate, 0.0))


def logits(
    tensors: Mapping[str, npt.NDArray[Any]], config: Mapping[str, Any], ids: Sequence[int]
) -> tuple[Array, list[float]]:
    """Logits (positions, vocab_size), and of each layer the share of gates that are not zero.

    Args:
        tensors: a checkpoint by the names of transformers.
        config: its config.json, with all keys that matter.
        ids: of the text.
    """
    w = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}
    embedding, layers = w["model.embed_tokens.weight"], config["num_hidden_layers"]
    minicpm = config["model_type"] == "minicpm"
    added = config["scale_depth"] / math.sqrt(layers) if minicpm else 1.0
    x = embedding[list(ids)] * (config["scale_emb"] if minicpm else 1.0)
    kinds = [_layer(w, layer) for layer in range(layers)]
    active = []
    for layer in kinds:
        x = x + added * _attention(normed(x, layer["input_layernorm"], _EPSILON), layer, config)
        h = normed(x, layer["post_attention_layernorm"], _EPSILON)
        gate, up = activated(h @ layer["mlp.gate_proj"].T, config), h @ layer["mlp.up_proj"].T
        if config["model_type"] == "bamboo":
            up = np.maximum(up, 0)
        active.append(float((gate != 0).mean()))
        x = x + added * ((gate * up) @ layer["mlp.down_proj"].T)
    h = normed(x, w["model.norm.weight"], _EPSILON)
    if minicpm:
        h = h / (config["hidden_size"] / config["dim_model_base"])
    head = embedding if config["tie_word_embeddings"] else w["lm_head.weight"]
    return h @ head.T, active


_EPSILON = 1e-5


def _layer(w: Mapping[str, Array], layer: int) -> dict[str, Array]:
    prefix = f"model.layers.{layer}."
    return {
        name.removeprefix(prefix).removesuffix(".weight"): tensor
        for name, tensor in w.items()
        if name.startswith(prefix)
    }


def _attention(h: Array, layer: Mapping[str, Array], config: Mapping[str, Any]) -> Array:
    tokens, size = len(h), config["hidden_size"] // config["num_attention_heads"]
    q, k, v = ((h @ layer[f"self_attn.{n}_proj"].T).reshape(tokens, -1, size) for n in "qkv")
    q, k = rotated(q), rotated(k)
    k, v = (np.repeat(each, q.shape[1] // k.shape[1], axis=1) for each in (k, v))
    scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(size)
    scores += np.triu(np.full((tokens, tokens), -np.inf), 1)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    mixed = np.einsum("hij,jhd->ihd", shares, v).reshape(tokens, -1)
    return np.asarray(mixed @ layer["self_attn.o_proj"].T)
