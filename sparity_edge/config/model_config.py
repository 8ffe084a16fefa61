"""ModelConfig: what config.json says about a Llama-shaped model, checked.

Fields are named as in config.json. Whatever the decoder cannot run is refused here, by key and
value, before a single weight is read. Keys that are not there mean what transformers 5 takes them
to mean. This module knows shapes and names of tensors; it knows nothing of how weights are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sparity_edge.config.rope_scaling import RopeScaling, rope_scaling, rope_theta
from sparity_edge.config.values import MAX_CONTEXT, read_boolean, read_integer, read_real, show
from sparity_edge.errors import ConfigError

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
}
BLOCK_LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
# What transformers 5 takes for a key that is not there, where the three model types differ.
DEFAULTS: dict[str, dict[str, int]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "qwen2": {
        "max_position_embeddings": 32768,
        "num_key_value_heads": 32,
        "sliding_window": 4096,
        "max_window_layers": 28,
    },
}
# Bounds on what a hostile config.json may make us allocate; the largest Llama is far below each.
MAX_DIMENSION = 1 << 20
MAX_LAYERS = 1 << 10


@dataclass(frozen=True)
class ModelConfig:
    """A Llama-shaped decoder; use `ModelConfig.from_dict` on the content of config.json."""

    model_type: str  # "llama", "mistral" or "qwen2"
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    # One entry a layer: how many positions a query sees, itself included; None: all of them.
    sliding_windows: tuple[int | None, ...] = ()
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    @classmethod
    def from_dict(
        cls, config: Mapping[str, Any], generation_config: Mapping[str, Any] | None = None
    ) -> ModelConfig:
        """Read and check config.json (and generation_config.json for the end-of-text ids).

        Args:
            config: the decoded config.json, in the style of transformers 4 or 5.
            generation_config: the decoded generation_config.json; its ids take precedence.

        Raises:
            ConfigError: a key is missing, has the wrong type, or asks for what is not supported.
        """
        if not isinstance(config, Mapping):
            raise ConfigError("config.json is not a JSON object; fetch the model again.")
        if generation_config is not None and not isinstance(generation_config, Mapping):
            raise ConfigError("generation_config.json is not a JSON object; fetch the model again.")
        model_type = _model_type(config)
        # A key that is null means "none" and is not the same as a key that is not there.
        config = {**DEFAULTS[model_type], **config}
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
        _refuse_unsupported(config, model_type)
        vocab_size = read_integer(config, "vocab_size", MAX_DIMENSION * 4)
        generation = generation_config or {}
        bos_ids = _token_ids(config, generation, "bos_token_id", vocab_size)
        return cls(
            model_type=model_type,
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=read_integer(config, "intermediate_size", MAX_DIMENSION),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            max_position_embeddings=read_integer(config, "max_position_embeddings", MAX_CONTEXT),
            rms_norm_eps=read_real(config, "rms_norm_eps", default=1e-6),
            rope_theta=rope_theta(config),
            rope_scaling=rope_scaling(config),
            tie_word_embeddings=read_boolean(config, "tie_word_embeddings", default=False),
            qkv_bias=model_type == "qwen2" or read_boolean(config, "attention_bias", default=False),
            o_bias=model_type == "llama" and read_boolean(config, "attention_bias", default=False),
            mlp_bias=read_boolean(config, "mlp_bias", default=False),
            sliding_windows=_sliding_windows(config, model_type, layers),
            bos_token_id=bos_ids[0] if bos_ids else None,
            eos_token_ids=_token_ids(config, generation, "eos_token_id", vocab_size),
        )

    def linear_shape(self, name: str) -> tuple[int, int]:
        """(outputs, inputs) of a linear of a block, named as in `BLOCK_LINEARS`."""
        q = self.num_attention_heads * self.head_dim
        kv = self.num_key_value_heads * self.head_dim
        hidden, inner = self.hidden_size, self.intermediate_size
        return {
            "self_attn.q_proj": (q, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, q),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }[name]

    def has_bias(self, name: str) -> bool:
        """Whether a linear of a block, named as in `BLOCK_LINEARS`, carries a bias."""
        if name == "self_attn.o_proj":
            return self.o_bias
        return self.qkv_bias if name.startswith("self_attn") else self.mlp_bias

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of a checkpoint by its name in transformers, in the order of use."""
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocab_size, self.hidden_size)
        }
        for layer in range(self.num_hidden_layers):
            block = f"model.layers.{layer}"
            shapes[f"{block}.input_layernorm.weight"] = (self.hidden_size,)
            shapes[f"{block}.post_attention_layernorm.weight"] = (self.hidden_size,)
            for name in BLOCK_LINEARS:
                shape = self.linear_shape(name)
                shapes[f"{block}.{name}.weight"] = shape
                if self.has_bias(name):
                    shapes[f"{block}.{name}.bias"] = shape[:1]
        shapes["model.norm.weight"] = (self.hidden_size,)
        if not self.tie_word_embeddings:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        return shapes


def _model_type(config: Mapping[str, Any]) -> str:
    architectures = config.get("architectures")
    stated = config.get("model_type")
    if isinstance(architectures, list) and architectures:
        name = architectures[0]
        if not isinstance(name, str) or name not in ARCHITECTURES:
            raise ConfigError(
                f"config.json: architectures={show(name)} is not supported; "
                f"use one of {', '.join(ARCHITECTURES)}."
            )
        if stated in ARCHITECTURES.values() and stated != ARCHITECTURES[name]:
            raise ConfigError(
                f"config.json: model_type={show(stated)} contradicts architectures={show(name)}; "
                "correct one of them."
            )
        return ARCHITECTURES[name]
    if stated not in ARCHITECTURES.values():
        raise ConfigError(
            f"config.json: model_type={show(stated)} is not supported; "
            f"use one of {', '.join(ARCHITECTURES.values())}."
        )
    return str(stated)


def _refuse_unsupported(config: Mapping[str, Any], model_type: str) -> None:
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise ConfigError(
            f"config.json: hidden_act={show(activation)} is not supported; only silu is."
        )
    quantization = config.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
        raise ConfigError(
            f"config.json: quantization_config with quant_method={show(method)} is not supported; "
            "use the model's unquantised weights or a GGUF file."
        )
    # transformers drops these biases without a word; a model trained with them would be another.
    unknown_biases = {
        "llama": (),
        "mistral": ("attention_bias", "mlp_bias"),
        "qwen2": ("mlp_bias",),
    }
    for key in unknown_biases[model_type]:
        if read_boolean(config, key, default=False):
            raise ConfigError(
                f"config.json: {key}=True is not supported for model_type={model_type!r}."
            )


def _sliding_windows(
    config: Mapping[str, Any], model_type: str, layers: int
) -> tuple[int | None, ...]:
    everything: tuple[int | None, ...] = (None,) * layers
    if config.get("sliding_window") is None or model_type == "llama":
        return everything
    if model_type == "qwen2" and not read_boolean(config, "use_sliding_window", default=False):
        return everything
    window = read_integer(config, "sliding_window", MAX_CONTEXT)
    kinds = config.get("layer_types")
    if kinds is not None:
        _check_layer_types(kinds, layers)
        return tuple(window if kind == "sliding_attention" else None for kind in kinds)
    first = 0
    if model_type == "qwen2":
        first = read_integer(config, "max_window_layers", MAX_LAYERS, least=0)
    return tuple(window if layer >= first else None for layer in range(layers))


def _check_layer_types(kinds: Any, layers: int) -> None:
    known = ("full_attention", "sliding_attention")
    if not isinstance(kinds, list) or len(kinds) != layers or any(k not in known for k in kinds):
        raise ConfigError(
            f"config.json: layer_types={show(kinds)} does not name full_attention or "
            f"sliding_attention for each of {layers} layers."
        )


def _token_ids(
    config: Mapping[str, Any], generation: Mapping[str, Any], key: str, vocab_size: int
) -> tuple[int, ...]:
    value = generation.get(key)
    file = "generation_config.json"
    if value is None:
        value = config.get(key)
        file = "config.json"
    ids = [] if value is None else value if isinstance(value, list) else [value]
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocab_size:
            raise ConfigError(
                f"{file}: {key}={show(token)} is not a token id below vocab_size={vocab_size}."
            )
    return tuple(ids)
