"""Models with random weights: shapes as of real ones, written as GGUF for us and for our peers.

Speed does not depend on what the weights say, so a file without training measures the same as one
that no hub is needed for. The numbers are drawn once and repeated; scales are chosen so that
activations stay of order one. The tokenizer is byte-level BPE without merges worth the name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

DRAWN = 1 << 22  # random blocks drawn once and repeated
FORMATS = ("Q8_0", "Q4_0")
SPECIAL = ("<s>", "</s>")


@dataclass(frozen=True)
class Shape:
    """The sizes of a Llama model."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int
    head_dim: int = 128
    tied: bool = False

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """(outputs, inputs) of the matrices of a block, and of the head."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q": (q, self.hidden),
            "k, v": (kv, self.hidden),
            "o": (self.hidden, q),
            "gate, up": (self.inner, self.hidden),
            "down": (self.hidden, self.inner),
            "head": (self.vocab, self.hidden),
        }


SHAPES = {
    "SmolLM2-135M": Shape(576, 1536, 30, 9, 3, 49152, head_dim=64, tied=True),
    "Llama-3.2-1B": Shape(2048, 8192, 16, 32, 8, 128256, head_dim=64, tied=True),
    "Llama-3-8B": Shape(4096, 14336, 32, 32, 8, 128256),
    "Mistral-7B": Shape(4096, 14336, 32, 32, 8, 32000),
    "Qwen2.5-0.5B": Shape(896, 4864, 24, 14, 2, 151936, head_dim=64, tied=True),
    "Qwen2.5-1.5B": Shape(1536, 8960, 28, 12, 2, 151936),
}
# What `--synthetic NAME` means: 16 layers, so that two runtimes fit into 24 GB side by side.
SYNTHETIC = {"8b": replace(SHAPES["Llama-3-8B"], layers=16), "1b": SHAPES["Llama-3.2-1B"]}


def synthetic_gguf(name: str, number_format: str) -> Path:
    """The GGUF file of a synthetic model in the cache folder, written unless it is there."""
    from sparity_edge.system.folders import cache_root

    path = cache_root() / "bench" / f"synthetic-{name}-{number_format}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        write_gguf(partial, SYNTHETIC[name], number_format)
        partial.replace(path)
    return path


def write_gguf(path: Path, shape: Shape, number_format: str) -> None:
    """Write a model with random weights in Q8_0 or Q4_0."""
    import gguf

    kind = gguf.GGMLQuantizationType[number_format]
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in _metadata(shape).items():
        _add(writer, key, value)
    tensors = _tensors(shape)
    blocks = _random_blocks(number_format)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    for tensor, sides in tensors.items():
        if len(sides) == 1:
            writer.add_tensor_info(tensor, sides, np.dtype(np.float32), 4 * sides[0])
        else:
            row = sides[1] // block * size
            stored = (sides[0], row)
            writer.add_tensor_info(tensor, stored, np.dtype(np.uint8), sides[0] * row, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for sides in tensors.values():
        if len(sides) == 1:
            writer.write_tensor_data(np.ones(sides, dtype=np.float32))
        else:
            count = sides[0] * sides[1] // block
            repeated = np.resize(blocks, (count, size))
            writer.write_tensor_data(repeated.reshape(sides[0], -1))
    writer.close()


def _random_blocks(number_format: str) -> Bytes:
    """Blocks of 32 weights with a standard deviation of about 0.02, (blocks, bytes)."""
    numbers, scale = (32, 0.02 / 74) if number_format == "Q8_0" else (16, 0.02 / 4.6)
    blocks = np.empty((DRAWN // 32, 2 + numbers), dtype=np.uint8)
    blocks[:, :2] = np.full((1, 1), scale, dtype=np.float16).view(np.uint8)
    drawn = np.random.default_rng(0).integers(1, 256, (len(blocks), numbers), dtype=np.uint8)
    blocks[:, 2:] = drawn + 128 if number_format == "Q8_0" else drawn
    return blocks


def _tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    linears = shape.linears
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": linears["head"]}
    for layer in range(shape.layers):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": (shape.hidden,),
            f"blk.{layer}.attn_q.weight": linears["q"],
            f"blk.{layer}.attn_k.weight": linears["k, v"],
            f"blk.{layer}.attn_v.weight": linears["k, v"],
            f"blk.{layer}.attn_output.weight": linears["o"],
            f"blk.{layer}.ffn_norm.weight": (shape.hidden,),
            f"blk.{layer}.ffn_gate.weight": linears["gate, up"],
            f"blk.{layer}.ffn_up.weight": linears["gate, up"],
            f"blk.{layer}.ffn_down.weight": linears["down"],
        }
    tensors["output_norm.weight"] = (shape.hidden,)
    if not shape.tied:
        tensors["output.weight"] = linears["head"]
    return tensors


def _metadata(shape: Shape) -> dict[str, Any]:
    from tokenizers import pre_tokenizers

    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]
    known = [*SPECIAL, *letters]
    fillers = [f"[PAD{number}]" for number in range(len(known), shape.vocab)]
    kinds = [3] * len(SPECIAL) + [1] * len(letters) + [5] * len(fillers)
    return {
        "llama.context_length": 16384,
        "llama.embedding_length": shape.hidden,
        "llama.block_count": shape.layers,
        "llama.feed_forward_length": shape.inner,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 500000.0,
        "llama.rope.dimension_count": shape.head_dim,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [*known, *fillers],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": ["t h"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
