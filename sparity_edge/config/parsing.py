"""config.json to a `ModelConfig`, by what a family declares.

Whatever the decoder cannot run is refused here, by key and value, before a single weight is read.
Keys that are not there mean what transformers 5 takes them to mean. Knows no family by name:
`model.families` finds the one that a file is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sparity_edge.config.activation import read_activation
from sparity_edge.config.family import Family
from sparity_edge.config.lora import lora
from sparity_edge.config.model_config import LAYER_LINEARS, ModelConfig
from sparity_edge.config.rope_scaling import read_ropes, rotary_dim
from sparity_edge.config.rotation import rotation
from sparity_edge.config.values import (
    MAX_CONTEXT,
    MAX_DIMENSION,
    MAX_LAYERS,
    read_boolean,
    read_integer,
    read_real,
    show,
    whole,
)
from sparity_edge.errors import ConfigError


def parse_config(
    config: Mapping[str, Any], generation_config: Mapping[str, Any] | None, family: Family
) -> ModelConfig:
    """Read and check config.json (and generation_config.json for the end-of-text ids).

    Args:
        config: the decoded config.json, in the style of transformers 4 or 5.
        generation_config: the decoded generation_config.json; its ids take precedence.
        family: what the keys mean.

    Raises:
        ConfigError: a key is missing, has the wrong type, or asks for what is not supported.
    """
    # A key that is null means "none" and is not the same as a key that is not there.
    config = family.plain({**family.defaults, **config})
    heads = read_integer(config, "num_attention_heads", MAX_DIMENSION)
    kv_heads = read_integer(config, "num_key_value_heads", MAX_DIMENSION, default=heads)
    hidden = read_integer(config, "hidden_size", MAX_DIMENSION)
    layers = read_integer(config, "num_hidden_layers", MAX_LAYERS)
    if heads % kv_heads:
        raise ConfigError(
            f"config.json: num_attention_heads={heads} is not a multiple of "
            f"num_key_value_heads={kv_heads}; the file is damaged."
        )
    if config.get("head_dim") is None and hidden % heads:
        raise ConfigError(
            f"config.json: hidden_size={hidden} is not a multiple of "
            f"num_attention_heads={heads} and there is no head_dim; the file is damaged."
        )
    head_dim = read_integer(config, "head_dim", MAX_DIMENSION, default=hidden // heads)
    if head_dim % 2:
        raise ConfigError(
            f"config.json: head_dim={head_dim} is odd; rotary embeddings need an even one."
        )
    _refuse_unsupported(config, family)
    vocab_size = read_integer(config, "vocab_size", MAX_DIMENSION * 4)
    generation = generation_config or {}
    rotated = rotary_dim(config, head_dim, family.partial_rope)
    rope, in_windows = read_ropes(config, rotated or head_dim, family.rope_by_layer_type)
    bos_ids = _token_ids(config, generation, "bos_token_id", vocab_size)
    scales = family.scales(config, layers, hidden)
    return ModelConfig(
        model_type=family.model_type,
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=read_integer(config, "intermediate_size", MAX_DIMENSION),
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=read_integer(config, "max_position_embeddings", MAX_CONTEXT),
        rms_norm_eps=read_real(config, "rms_norm_eps", default=1e-6) * scales.epsilon,
        rope_theta=rope.theta,
        rope_scaling=rope.scaling,
        rope_in_windows=in_windows,
        tie_word_embeddings=read_boolean(config, "tie_word_embeddings", default=False),
        qkv_bias=_stated(family.qkv_bias, config),
        o_bias=_stated(family.o_bias, config),
        mlp_bias=_stated(family.mlp_bias, config),
        sliding_windows=family.windows(config, layers),
        bos_token_id=bos_ids[0] if bos_ids else None,
        eos_token_ids=_token_ids(config, generation, "eos_token_id", vocab_size),
        norms=family.norms,
        qk_norm=family.qk_norm,
        rotary_dim=rotated,
        layers_without_rope=family.layers_without_rope(config, layers),
        activation=read_activation(config, family.activated_up),
        scales=scales,
        rotation=rotation(config),
        lora=lora(config, layers, LAYER_LINEARS),
    )


def _stated(bias: bool | str, config: Mapping[str, Any]) -> bool:
    """Whether there is a bias: always, never, or where the key named says so."""
    return read_boolean(config, bias, default=False) if isinstance(bias, str) else bias


def _refuse_unsupported(config: Mapping[str, Any], family: Family) -> None:
    quantization = config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
        raise ConfigError(
            f"config.json: quantization_config with quant_method={show(method)} is not supported; "
            "use the model's unquantised weights or a GGUF file."
        )
    # transformers drops these biases without a word; a model trained with them would be another.
    for key in family.refused:
        if read_boolean(config, key, default=False):
            raise ConfigError(
                f"config.json: {key}=True is not supported for model_type={family.model_type!r}."
            )


def _token_ids(
    config: Mapping[str, Any], generation: Mapping[str, Any], key: str, vocab_size: int
) -> tuple[int, ...]:
    value = generation.get(key)
    file = "generation_config.json"
    if value is None:
        value = config.get(key)
        file = "config.json"
    ids = value if isinstance(value, list) else [value]
    found = [whole(token) for token in ids if token is not None]
    for token in found:
        if isinstance(token, bool) or not isinstance(token, int):
            raise ConfigError(f"{file}: {key}={show(token)} is not a token id.")
    # -1 and ids beyond the vocabulary stand for "none": no token is ever such a one.
    return tuple(token for token in found if 0 <= token < vocab_size)
