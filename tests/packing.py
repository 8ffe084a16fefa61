"""What the tests of the packed folder share: a model held in memory, and hypothesis strategies.

The model is far smaller than any real one and odd in every dimension; it knows no file format.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from converters.numbers.quantize import Quantized
from converters.sources.source import Source
from sparity_edge.model.families import read_config
from sparity_edge.packed.layout import (
    BY_THEMSELVES,
    DTYPE_BITS,
    GROUPS,
    K_QUANT_GROUPS,
    KEPT_GROUPS,
    ORIENTATIONS,
    SUPERBLOCK,
    Layout,
)

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 71,
    "hidden_size": 50,
    "intermediate_size": 90,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
    "num_key_value_heads": 1,
    "attention_bias": True,
    "tie_word_embeddings": False,
}
TOKENIZER = b'{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "added_tokens": []}'
INT8 = ("int8", 32, False)
INT4 = ("int4", 32, False)
INT4_MINIMUM = ("int4", 32, True)
INT5 = ("int5", 32, False)
INT5_MINIMUM = ("int5", 32, True)
INT4K = ("int4k", 32, True)
INT5K = ("int5k", 32, True)
INT6K = ("int6k", 16, False)
INT2K = ("int2k", 16, True)
INT3K = ("int3k", 16, False)
IQ4 = ("iq4", 32, False)
IQ4K = ("iq4k", 32, False)
WITH_MINIMA = ("int2k", "int4k", "int5k")  # of K-quants


def random_quantized(
    shape: tuple[int, int], dtype: str, group: int, minimum: bool, seed: int = 0
) -> Quantized:
    """Numbers over their whole range with random scales."""
    random = np.random.default_rng(seed)
    if dtype in K_QUANT_GROUPS:
        return _random_k_quants(random, shape, dtype, group)
    scales = (shape[0], -(-shape[1] // group))
    low, high, kind = (-128, 128, np.int8)
    if dtype != "int8":
        low, high, kind = (0, 1 << DTYPE_BITS[dtype], np.uint8)
    return Quantized(
        dtype,
        group,
        random.integers(low, high, shape).astype(kind),
        random.normal(size=scales).astype(np.float16),
        random.normal(size=scales).astype(np.float16) if minimum else None,
    )


def _random_k_quants(
    random: np.random.Generator, shape: tuple[int, int], dtype: str, group: int
) -> Quantized:
    scales, blocks = (shape[0], shape[1] // group), (shape[0], shape[1] // SUPERBLOCK)
    low, high, kind = -(1 << DTYPE_BITS[dtype]) // 2, (1 << DTYPE_BITS[dtype]) // 2, np.int8
    if dtype not in ("int3k", "int6k"):
        low, high, kind = 0, 1 << DTYPE_BITS[dtype], np.uint8
    numbers = random.integers(low, high, shape).astype(kind)
    if dtype in WITH_MINIMA:
        most = 16 if dtype == "int2k" else 64
        pair = random.integers(0, most, (2, *scales)).astype(np.uint8)
        factors = (random.normal(size=(*blocks, 2)) / 64).astype(np.float16)
        return Quantized(dtype, group, numbers, pair[0], pair[1], factors)
    most = 128 if dtype == "int6k" else 32
    signed = random.integers(-most, most, scales).astype(np.int8)
    factors = (random.normal(size=(*blocks, 1)) / 64).astype(np.float16)
    return Quantized(dtype, group, numbers, signed, None, factors)


def equal(left: Any, right: Any) -> bool:
    """Whether two `Quantized` or arrays hold the same, bit for bit."""
    if not isinstance(left, Quantized):
        return bool(np.array_equal(left, right))
    pairs = [(left.numbers, right.numbers), (left.scales, right.scales)]
    for kind in ("minimums", "factors"):
        if getattr(left, kind) is not None:
            pairs.append((getattr(left, kind), getattr(right, kind)))
        elif getattr(right, kind) is not None:
            return False
    return all(b is not None and a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


class FakeSource(Source):
    """Random weights for `CONFIG`; `natives` says which matrices are quantised, and how."""

    def __init__(self, natives: dict[str, tuple[str, int, bool]] | None = None) -> None:
        self.label, self.config_json, self.files = "fake", dict(CONFIG), ()
        self.generation_config = {"eos_token_id": [2, 3]}
        self.tokenizer_files = {
            "tokenizer.json": TOKENIZER,
            "chat_template.jinja": b"{{ messages }}",
        }
        self.natives = natives or {}
        self.tensors: dict[str, Any] = {}
        random = np.random.default_rng(1)
        for name, shape in read_config(CONFIG).tensor_shapes().items():
            values = random.normal(size=shape).astype(np.float32)
            kind = next((self.natives[key] for key in self.natives if key in name), None)
            self.tensors[name] = values
            if kind and len(shape) == 2:
                self.tensors[name] = random_quantized((shape[0], shape[1]), *kind)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.config.tensor_shapes()

    def check_dtype(self, name: str) -> None: ...

    def native(self, name: str) -> tuple[str, int, bool] | None:
        tensor = self.tensors[name]
        if not isinstance(tensor, Quantized):
            return None
        return tensor.dtype, tensor.group, tensor.minimums is not None

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Any:
        tensor = self.tensors[name]
        if not isinstance(tensor, Quantized):
            return tensor[start:stop]
        minimums, factors = (
            None if each is None else each[start:stop] for each in (tensor.minimums, tensor.factors)
        )
        return Quantized(
            tensor.dtype,
            tensor.group,
            tensor.numbers[start:stop],
            tensor.scales[start:stop],
            minimums,
            factors,
        )

    def weights(self, name: str) -> Any:
        tensor = self.tensors[name]
        return tensor.dequantize() if isinstance(tensor, Quantized) else tensor

    def fingerprint(self) -> str:
        return hashlib.sha256(repr(self.natives).encode()).hexdigest()


def pack_folder(source: Path, out: Path, dtype: str | None = None, layout: str = "dense") -> Path:
    """The packed folder `out` of a checkpoint folder."""
    from converters.pack import convert
    from converters.pack_options import PackOptions
    from converters.store import open_any

    with open_any(str(source)) as opened:
        return convert(opened, out, PackOptions(dtype, layout=layout))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Any layout of a matrix of up to 300 x 300, or of a K-quant of up to 300 x 1280."""
    dtype = draw(st.sampled_from(list(DTYPE_BITS)))
    orientation = "output" if dtype in BY_THEMSELVES else draw(st.sampled_from(ORIENTATIONS))
    if dtype in K_QUANT_GROUPS:
        shape = draw(st.integers(1, 300)), SUPERBLOCK * draw(st.integers(1, 5))
        return Layout(dtype, orientation, shape, K_QUANT_GROUPS[dtype], dtype in WITH_MINIMA)
    if dtype in KEPT_GROUPS:
        shape = draw(st.integers(1, 70)), draw(st.integers(1, 1300))
        return Layout(dtype, "output", shape, 32, dtype == "int5" and draw(st.booleans()))
    return Layout(
        dtype,
        orientation,
        (draw(st.integers(1, 300)), draw(st.integers(1, 300))),
        draw(st.sampled_from(GROUPS)) if dtype.startswith("int") else 0,
        draw(st.booleans()) if dtype == "int4" else False,
    )


def random_weights(layout: Layout, seed: int = 0) -> Any:
    """Weights that the layout holds without loss."""
    if layout.quantized:
        return random_quantized(layout.shape, layout.dtype, layout.group, layout.minimum, seed)
    values = np.random.default_rng(seed).normal(size=layout.shape).astype(np.float32)
    if layout.dtype == "bf16":
        values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    return values
