"""Tiny GGUF files, written with the gguf package as llama.cpp's converter would write them.

`write(path)` makes a complete one-layer model; keyword arguments change what is in it. Rows of q
and k are permuted where llama.cpp does so by the reshape that llama.cpp's converter uses, which is
another formula than the one in converters.sources.gguf. Knows nothing of converters.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 256, 512, 4, 2, 64, 288
BLOCK = {
    "attn_q": ("self_attn.q_proj", (HEADS * HEAD_DIM, HIDDEN)),
    "attn_k": ("self_attn.k_proj", (KV_HEADS * HEAD_DIM, HIDDEN)),
    "attn_v": ("self_attn.v_proj", (KV_HEADS * HEAD_DIM, HIDDEN)),
    "attn_output": ("self_attn.o_proj", (HIDDEN, HEADS * HEAD_DIM)),
    "ffn_gate": ("mlp.gate_proj", (INNER, HIDDEN)),
    "ffn_up": ("mlp.up_proj", (INNER, HIDDEN)),
    "ffn_down": ("mlp.down_proj", (HIDDEN, INNER)),
    "attn_norm": ("input_layernorm", (HIDDEN,)),
    "ffn_norm": ("post_attention_layernorm", (HIDDEN,)),
}
# Of which llama.cpp permutes the rows of q and k.
INTERLEAVED = ("llama", "granite", "mistral3", "smollm3")
SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")


def checkpoint_name(name: str) -> str:
    """Name in a transformers checkpoint of the tensor that `tensors` calls `name`."""
    stem, kind = name.removeprefix("blk.0.").rsplit(".", 1)
    if stem in BLOCK:
        return f"model.layers.0.{BLOCK[stem][0]}.{kind}"
    outside = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    return f"{outside[stem]}.{kind}"


def tensors(biases: Sequence[str] = (), untied: bool = False) -> dict[str, np.ndarray]:
    """Random float32 weights by GGUF name, rows in the order of the checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {
        f"blk.0.{stem}.weight": shape for stem, (_, shape) in BLOCK.items()
    }
    shapes |= {f"blk.0.{stem}.bias": BLOCK[stem][1][:1] for stem in biases}
    shapes |= {"token_embd.weight": (VOCAB, HIDDEN), "output_norm.weight": (HIDDEN,)}
    if untied:
        shapes["output.weight"] = (VOCAB, HIDDEN)
    random = np.random.RandomState(7)
    return {
        name: (random.standard_normal(shape) / 16).astype(np.float32)
        for name, shape in shapes.items()
    }


def model_metadata(architecture: str) -> dict[str, Any]:
    """The keys that describe the model of `tensors`."""
    keys = {
        "context_length": 128,
        "embedding_length": HIDDEN,
        "block_count": 1,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 10000.0,
        "rope.dimension_count": HEAD_DIM,
    }
    return {f"{architecture}.{key}": value for key, value in keys.items()}


def plain_tokenizer() -> dict[str, Any]:
    """Byte-level BPE with one merge (the writer refuses empty lists) and fillers at the end."""
    from tokenizers import pre_tokenizers

    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]
    fillers = [f"[PAD{number}]" for number in range(len(SPECIAL) + len(letters), VOCAB)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [*SPECIAL, *letters, *fillers],
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * len(letters) + [5] * len(fillers),
        "tokenizer.ggml.merges": ["t h"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    }


def tokenizer_metadata(tokenizer_json: str, **extra: Any) -> dict[str, Any]:
    """What the converter of llama.cpp takes from a byte-level tokenizer.json."""
    content = json.loads(tokenizer_json)
    vocab = dict(content["model"]["vocab"])
    added = {token["content"]: token for token in content["added_tokens"]}
    vocab |= {text: token["id"] for text, token in added.items()}
    size = max(vocab.values()) + 1
    texts, kinds = [f"[PAD{number}]" for number in range(size)], [5] * size
    for text, number in vocab.items():
        kind = 1 if text not in added else 3 if added[text]["special"] else 4
        texts[number], kinds[number] = text, kind
    merges = [" ".join(merge) for merge in content["model"]["merges"]]
    keys = {"model": "gpt2", "tokens": texts, "token_type": kinds, "merges": merges, **extra}
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def write(
    path: Path,
    *,
    architecture: str = "llama",
    weights: Mapping[str, np.ndarray] | None = None,
    kinds: Mapping[str, Kind] | None = None,
    metadata: Mapping[str, Any] | None = None,
    tokenizer: Mapping[str, Any] | None = None,
    scales: tuple[float, float] = (1e-4, 1e-3),
) -> Path:
    """Write a GGUF file.

    Args:
        path: where to.
        architecture: `general.architecture`.
        weights: as `tensors()`, which is the default.
        kinds: number type by GGUF name; F32 where none is given.
        metadata: keys added to or put in place of the usual ones; None removes a key.
        tokenizer: metadata of the tokenizer; `plain_tokenizer()` is the default.
        scales: bounds of the float16 scales of types that the gguf package cannot make.
    """
    writer = gguf.GGUFWriter(path, architecture)
    keys = {**model_metadata(architecture), **(tokenizer or plain_tokenizer()), **(metadata or {})}
    for key, value in keys.items():
        _add(writer, key, value)
    head_dim = keys.get(f"{architecture}.attention.key_length", HEAD_DIM)
    for name, values in (tensors() if weights is None else weights).items():
        kind = (kinds or {}).get(name, Kind.F32)
        stored = _permute(name, values, head_dim) if architecture in INTERLEAVED else values
        writer.add_tensor(name, encode(stored, kind, scales), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def encode(
    values: np.ndarray, kind: Kind, scales: tuple[float, float] = (1e-4, 1e-3)
) -> np.ndarray:
    """The bytes of `values`; for types that the gguf package cannot make, sane random ones."""
    try:
        return gguf.quants.quantize(values, kind)
    except NotImplementedError:
        return _random_blocks(values.shape, kind, scales)


def _random_blocks(shape: tuple[int, ...], kind: Kind, bounds: tuple[float, float]) -> np.ndarray:
    """Random bytes whose float16 scales are small finite numbers."""
    places: dict[Kind, tuple[int, ...]] = {
        Kind.Q4_K: (0, 2),
        Kind.Q5_K: (0, 2),
        Kind.Q6_K: (208,),
        Kind.Q3_K: (108,),
        Kind.Q2_K: (80, 82),
        Kind.IQ4_NL: (0,),
        **dict.fromkeys((Kind.IQ4_XS, Kind.IQ3_S, Kind.IQ3_XXS), (0,)),
        **dict.fromkeys((Kind.IQ2_S, Kind.IQ2_XS, Kind.IQ2_XXS, Kind.IQ1_S), (0,)),
    }
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = np.random.RandomState(3).randint(0, 256, (*shape[:-1], shape[-1] // block, size))
    blocks = blocks.astype(np.uint8)
    if kind == Kind.IQ1_M:  # its scale stands in four high nibbles
        blocks[..., 55] = blocks[..., 55] & 0x0F | 0x10
    for place in places.get(kind, ()):
        scales = np.random.RandomState(4).uniform(*bounds, (*blocks.shape[:-1], 1))
        blocks[..., place : place + 2] = scales.astype(np.float16).view(np.uint8)
    return blocks.reshape(*shape[:-1], -1)


def _permute(name: str, values: np.ndarray, head_dim: int) -> np.ndarray:
    if name.split(".")[-2] not in ("attn_q", "attn_k"):
        return values
    halves = values.reshape(-1, 2, head_dim // 2, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        # llama.cpp wants its sizes as such, and tests have other whole numbers too.
        (writer.add_uint32 if 0 <= value < 1 << 32 else writer.add_int64)(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)
