"""GGUF metadata to the content of config.json.

Keys are those llama.cpp writes (`llama.attention.head_count`); what the decoder cannot run is
refused here by that key, so that the sentence names what stands in the file. Knows nothing of
number types and tokenizers; what a family has of its own stands in its file in
`sparity_edge/model/families/`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from converters.sources.gguf_metadata import GgufHeader, brief
from converters.sources.gguf_rope import rope_scaling
from converters.sources.source import Array
from sparity_edge.config.family import Family, GgufNames
from sparity_edge.config.rope_scaling import Rope
from sparity_edge.config.unsupported import missing
from sparity_edge.config.values import whole
from sparity_edge.errors import SourceError
from sparity_edge.model.families import families

WINDOW = "attention.sliding_window"  # which converters write for few families
# Key below general.sampling -> the same in generation_config.json; llama.cpp knows more.
SAMPLING = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}


def suggested_sampling(header: GgufHeader) -> dict[str, float]:
    """What the file's author suggests for drawing tokens, as generation_config.json has it.

    A value that is no number is passed over, since the model runs as well without it.
    """
    found = {}
    for key, name in SAMPLING.items():
        try:
            found[name] = header.real(f"general.sampling.{key}")
        except SourceError:
            continue
    return found


def family_of(header: GgufHeader) -> tuple[Family, GgufNames]:
    """The family of a file, and what GGUF calls its parts.

    Raises:
        SourceError: the file is of an architecture that no family has.
    """
    name = header.text("general.architecture")
    metadata = {key.removeprefix(f"{name}."): value for key, value in header.metadata.items()}
    demand_architecture(name, header.label, metadata)
    known = [(family, family.gguf) for family in families().values() if family.gguf]
    found = [(family, names) for family, names in known if names.architecture == name]
    # The one whose mark the file bears, else the one that needs none.
    return min(found, key=lambda each: _rank(header, each[1]))


def demand_architecture(name: str, label: str, metadata: Mapping[str, Any] | None = None) -> None:
    """Refuse an architecture that no family has.

    Args:
        name: of the architecture.
        label: what errors call the model.
        metadata: of the file, without the name of the architecture before the keys.

    Raises:
        SourceError: no family has it.
    """
    architectures = dict.fromkeys(
        family.gguf.architecture for family in families().values() if family.gguf
    )
    if name not in architectures:
        raise SourceError(
            f"{label}: general.architecture={brief(name)} is not supported"
            f"{missing(name, metadata or {})}; use one of {', '.join(architectures)}."
        )


def notes_on_config(header: GgufHeader) -> tuple[str, ...]:
    """What the metadata do not tell and config.json does, a sentence each."""
    name = header.metadata.get("general.name")
    if not isinstance(name, str) or "mistral" not in name.lower():
        return ()
    architecture = header.text("general.architecture")
    if architecture != "llama" or f"{architecture}.{WINDOW}" in header.metadata:
        return ()
    return (
        "the file tells no sliding window, so every token attends to all before it; where the "
        "model's config.json has one (Mistral 7B v0.1: 4096 tokens), texts longer than that are "
        "answered otherwise than from its folder.",
    )


def _rank(header: GgufHeader, names: GgufNames) -> int:
    if names.marked_by is None:
        return 1
    return 0 if header.integer(f"{names.architecture}.{names.marked_by}", 0) else 2


def make_config(header: GgufHeader, rope_factors: Mapping[str, Array]) -> dict[str, Any]:
    """Content of config.json.

    Args:
        header: of the file.
        rope_factors: those of `gguf_rope.FACTOR_TENSORS` that the file holds.

    Raises:
        SourceError: a key is missing or asks for what is not supported.
    """
    family, names = family_of(header)
    name = names.architecture
    _refuse_unsupported(header, names)
    heads = header.every_layer(f"{name}.attention.head_count")
    hidden = header.integer(f"{name}.embedding_length")
    if heads < 1:
        raise SourceError(f"{header.label}: {name}.attention.head_count={heads} is below 1.")
    head_dim = header.integer(f"{name}.attention.key_length", hidden // heads)
    rotated = header.integer(f"{name}.rope.dimension_count", head_dim)
    _refuse_other_head_sizes(header, name, head_dim, family.partial_rope)
    theta = header.real(f"{name}.rope.freq_base", 10000.0)
    config = {
        "architectures": [family.architectures[0]],
        "model_type": family.model_type,
        "vocab_size": _vocab_size(header),
        "hidden_size": hidden,
        "intermediate_size": header.every_layer(f"{name}.feed_forward_length"),
        "num_hidden_layers": header.integer(f"{name}.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": header.every_layer(f"{name}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": header.integer(f"{name}.context_length"),
        "rms_norm_eps": header.real(f"{name}.attention.layer_norm_rms_epsilon"),
        "rope_theta": theta,
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        "mlp_bias": "blk.0.ffn_gate.bias" in header.tensors,
    }
    if rotated != head_dim:
        config["partial_rotary_factor"] = _rotated_share(rotated, head_dim)
    scaling = rope_scaling(header, name, rope_factors, Rope(theta, None, rotated))
    config["rope_scaling"] = scaling or {"rope_type": "default"}
    for key, stem in (
        (family.o_bias, "attn_output"),
        (family.qkv_bias, "attn_q"),
        (family.mlp_bias, "ffn_gate"),
    ):
        if isinstance(key, str):
            config[key] = f"blk.0.{stem}.bias" in header.tensors
    if names.windows is not None:
        layers = header.integer(f"{name}.block_count")
        config["layer_types"] = _layer_types(header, f"{name}.{names.windows}", layers)
    return config | {key: _stated(header, f"{name}.{each}") for key, each in names.keys.items()}


def _layer_types(header: GgufHeader, key: str, layers: int) -> list[str] | None:
    """`layer_types` of config.json; None where the key that says what has a window is missing."""
    if key not in header.metadata:
        return None
    if isinstance(header.metadata[key], int):
        every = header.integer(key)
        windowed = [every < 1 or (layer + 1) % every > 0 for layer in range(layers)]
    else:
        windowed = header.numbers(key).astype(bool).tolist()
        if len(windowed) != layers:
            raise SourceError(
                f"{header.label}: {key} is of {len(windowed)} layers, and the model has {layers}; "
                "the file is damaged."
            )
    return ["sliding_attention" if each else "full_attention" for each in windowed]


def _stated(header: GgufHeader, key: str) -> bool | float | None:
    """A number or a truth value; None where it is not there, or 0, which stands for "none"."""
    if isinstance(header.metadata.get(key), bool):
        return header.boolean(key, default=True)
    return whole(header.real(key, 0.0)) or None


def _vocab_size(header: GgufHeader) -> int:
    """Rows of the embedding; there may be more of them than tokens, never fewer."""
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None:
        raise SourceError(f"{header.label}: tensor token_embd.weight is missing; fetch it again.")
    tokens = len(header.texts("tokenizer.ggml.tokens"))
    if tokens > embedding.shape[0]:
        raise SourceError(
            f"{header.label}: tokenizer.ggml.tokens has {tokens} tokens, but token_embd.weight "
            f"only {embedding.shape[0]} rows; the file is damaged."
        )
    return embedding.shape[0]


def _refuse_unsupported(header: GgufHeader, names: GgufNames) -> None:
    for name in names.unsupported:
        key = f"{names.architecture}.{name}"
        value = 0.0 if name in names.keys.values() else header.real(key, 0.0)
        if value:
            raise SourceError(
                f"{header.label}: {key}={value:g} is not supported{missing('', {name: value})}; "
                "take a model without it."
            )


def _rotated_share(rotated: int, head_dim: int) -> float:
    """The partial_rotary_factor that, multiplied by head_dim and cut, gives this number."""
    share = rotated / head_dim
    return share if int(head_dim * share) == rotated else math.nextafter(share, 1)


def _refuse_other_head_sizes(header: GgufHeader, name: str, head_dim: int, partial: bool) -> None:
    rotated = () if partial else (f"{name}.rope.dimension_count",)
    for key in (f"{name}.attention.value_length", *rotated):
        value = header.integer(key, head_dim)
        if value != head_dim:
            raise SourceError(
                f"{header.label}: {key}={value} is not supported; it must be {head_dim} as the "
                "size of the heads."
            )
