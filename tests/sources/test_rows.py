"""Matrices that hold several, and heads that are rotated in part: rows are told apart exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import gguf_files
import numpy as np
import pytest
import quantised_files
import tiny
from gguf import GGMLQuantizationType as Kind
from gguf_files import HEAD_DIM, HEADS, HIDDEN, INNER, KV_HEADS

from converters.adapters.apply import adapted
from converters.adapters.names import Adapter
from converters.numbers.quantize import Quantized
from converters.sources import open_source
from converters.sources.hf import HuggingFaceSource
from sparity_edge.errors import SourceError
from sparity_edge.progress import QUIET

ROTATED = 24  # of each head
# Where a head holds the row that belongs at each place, so that pairs stand half a head apart.
ORDER = [
    *range(12),  # the first of each pair
    *range(24, 44),
    *range(12, 24),  # the second
    *range(44, 64),
]
Q, KV = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM


@pytest.fixture
def phi3(write: Callable[..., str]) -> Callable[[Kind], str]:
    """phi3(kind) -> a GGUF file whose fused matrices are of this number type."""

    def _phi3(kind: Kind) -> str:
        weights = gguf_files.tensors()
        own = {"attn_qkv": ("attn_q", "attn_k", "attn_v"), "ffn_up": ("ffn_gate", "ffn_up")}
        for fused, stems in own.items():
            parts = [weights.pop(f"blk.0.{stem}.weight") for stem in stems]
            weights[f"blk.0.{fused}.weight"] = np.concatenate(parts)
        return write(
            architecture="phi3",
            weights=weights,
            kinds={f"blk.0.{fused}.weight": kind for fused in own},
            metadata={"phi3.rope.dimension_count": ROTATED},
        )

    return _phi3


def in_heads(rows: np.ndarray) -> np.ndarray:
    """Rows of q or k with those of each head in `ORDER`."""
    return rows.reshape(-1, HEAD_DIM, HIDDEN)[:, ORDER].reshape(rows.shape)


@pytest.mark.parametrize("kind", [Kind.F16, Kind.Q8_0, Kind.Q4_K, Kind.Q6_K])
def test_rows_of_fused_matrices_keep_their_numbers(phi3: Callable[[Kind], str], kind: Kind) -> None:
    path = phi3(kind)
    stored = {
        each.name: gguf.quants.dequantize(each.data, each.tensor_type)
        for each in gguf.GGUFReader(path).tensors
    }
    qkv, gate_up = stored["blk.0.attn_qkv.weight"], stored["blk.0.ffn_up.weight"]
    expected = {
        "self_attn.q_proj": in_heads(qkv[:Q]),
        "self_attn.k_proj": in_heads(qkv[Q : Q + KV]),
        "self_attn.v_proj": qkv[Q + KV :],
        "mlp.gate_proj": gate_up[:INNER],
        "mlp.up_proj": gate_up[INNER:],
    }
    with open_source(path) as source:
        assert source.config.rotary_dim == ROTATED
        for module, rows in expected.items():
            name = f"model.layers.0.{module}.weight"
            assert source.shapes()[name] == rows.shape
            for start, stop in ((0, None), (0, 1), (HEAD_DIM - 3, HEAD_DIM + 5), (37, 128)):
                found = source.read(name, start, stop)
                assert isinstance(found, Quantized) == (source.native(name) is not None)
                values = found.dequantize() if isinstance(found, Quantized) else found
                np.testing.assert_array_equal(values, rows[start:stop])


def test_quantised_safetensors_keep_theirs_too(folder: Callable[[str], Path]) -> None:
    path = folder("phi3_few_keys")
    quantised_files.quantise(path, "awq-64")
    config = json.loads((path / "config.json").read_text())
    tiny.write_json(path / "config.json", {**config, "partial_rotary_factor": 0.5})
    order = [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]
    with HuggingFaceSource(path, "as stored") as stored, open_source(str(path)) as source:
        qkv = stored.read("model.layers.0.self_attn.qkv_proj.weight")
        found = source.read("model.layers.0.self_attn.k_proj.weight")
        assert isinstance(qkv, Quantized)
        assert isinstance(found, Quantized)
        rows = qkv.dequantize()[64:128].reshape(4, 16, 64)[:, order].reshape(64, 64)
        np.testing.assert_array_equal(found.dequantize(), rows)


@pytest.mark.parametrize("module", ["self_attn.qkv_proj", "mlp.gate_up_proj"])
def test_other_numbers_of_rows_are_refused(folder: Callable[[str], Path], module: str) -> None:
    path = folder("phi3_few_keys")
    tensors = tiny.make_tensors(tiny.CASES["phi3_few_keys"])
    name = f"model.layers.1.{module}.weight"
    tensors[name] = tensors[name][:-16]
    tiny.write_safetensors(path / "model.safetensors", tensors)
    with pytest.raises(SourceError, match=f"{module}.weight has shape .* asks for .* rows"):
        open_source(str(path))
    del tensors[name]
    tiny.write_safetensors(path / "model.safetensors", tensors)
    with pytest.raises(SourceError, match=r"layers\.1\..*_proj\.weight .* is missing"):
        open_source(str(path))


def test_a_llama_may_not_have_them(folder: Callable[[str], Path]) -> None:
    path = folder("llama_tied")
    tensors = tiny.make_tensors(tiny.CASES["llama_tied"])
    tensors["model.layers.0.self_attn.qkv_proj.weight"] = np.ones((192, 64), np.float32)
    tiny.write_safetensors(path / "model.safetensors", tensors)
    with pytest.raises(SourceError, match=r"qkv_proj\.weight has no place"):
        open_source(str(path))


def test_an_adapter_has_its_rows_where_the_model_has_them(
    folder: Callable[[str], Path], tmp_path: Path
) -> None:
    path, name = folder("phi3_longrope"), "model.layers.0.self_attn.qkv_proj"
    tensors = tiny.make_tensors(tiny.CASES["phi3_longrope"])
    shape, random = tensors[f"{name}.weight"].shape, np.random.RandomState(0)
    a, b = (random.randint(-3, 4, size).astype(np.float32) for size in ((2, 80), (shape[0], 2)))
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["qkv_proj"]}
    lora = tmp_path / "lora"
    lora.mkdir()
    tiny.write_json(lora / "adapter_config.json", settings)
    prefix = f"base_model.model.{name}.lora_"
    halves = {f"{prefix}A.weight": a, f"{prefix}B.weight": b}
    tiny.write_safetensors(lora / "adapter_model.safetensors", halves)
    linears = [f"model.layers.0.self_attn.{each}_proj.weight" for each in "qkv"]
    opened = open_source(str(path))
    with adapted(opened, [Adapter(lora, 1.0)], "with a LoRA", QUIET) as source:
        found = [source.read(each) for each in linears]
    tensors[f"{name}.weight"] = tensors[f"{name}.weight"] + b @ a
    tiny.write_safetensors(path / "model.safetensors", tensors)
    with open_source(str(path)) as source:
        for each, values in zip(linears, found, strict=True):
            np.testing.assert_allclose(values, source.read(each), rtol=0, atol=1e-5)
