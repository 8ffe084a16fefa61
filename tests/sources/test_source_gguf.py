"""GGUF files: weights, configuration, and everything a damaged or hostile file may hold."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import gguf_files
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from gguf_files import HEAD_DIM, VOCAB, checkpoint_name, encode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.numbers.quantize import Quantized
from converters.sources import open_source
from converters.sources.gguf_config import llama3_factors
from converters.sources.source import Source
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.errors import SourceError, SparityError

NATIVE = {
    Kind.Q8_0: ("int8", 32, False),
    Kind.Q4_0: ("int4", 32, False),
    Kind.Q4_1: ("int4", 32, True),
    Kind.Q4_K: ("int4k", 32, True),
    Kind.Q6_K: ("int6k", 16, False),
}
MATRICES = [
    "token_embd.weight",
    *(f"blk.0.{stem}.weight" for stem in gguf_files.BLOCK if "norm" not in stem),
]


def floats(value: np.ndarray | Quantized) -> np.ndarray:
    return value.dequantize() if isinstance(value, Quantized) else value


def expected(values: np.ndarray, kind: Kind) -> np.ndarray:
    """What a matrix is worth after it was stored; groups lie in rows, so order does not matter."""
    return gguf.quants.dequantize(encode(values, kind), kind)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def _write(**options: Any) -> str:
        return str(gguf_files.write(tmp_path / "model.gguf", **options))

    return _write


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1])
def test_weights_are_exact(write: Callable[..., str], architecture: str, kind: Kind) -> None:
    biases = ("attn_q", "attn_k", "attn_v") if architecture == "qwen2" else ()
    weights = gguf_files.tensors(biases, untied=True)
    kinds = dict.fromkeys((*MATRICES, "output.weight"), kind)
    path = write(architecture=architecture, weights=weights, kinds=kinds)
    with open_source(path) as source:
        for name, values in weights.items():
            wanted = expected(values, kinds.get(name, Kind.F32))
            np.testing.assert_array_equal(floats(source.read(checkpoint_name(name))), wanted)
            wanted_native = NATIVE.get(kind) if name in kinds else None
            assert source.native(checkpoint_name(name)) == wanted_native


@pytest.mark.parametrize("kind", [Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.Q3_K, Kind.Q5_0])
def test_other_types_are_exact_too(write: Callable[..., str], kind: Kind) -> None:
    weights = gguf_files.tensors()
    name = "blk.0.ffn_down.weight"  # not permuted, so that random bytes are comparable
    with open_source(write(weights=weights, kinds={name: kind})) as source:
        value = source.read(checkpoint_name(name))
        wanted = expected(weights[name], kind)
        np.testing.assert_array_equal(floats(value), wanted)
        assert isinstance(value, Quantized) == (kind in NATIVE)


@pytest.mark.parametrize("kind", [Kind.F32, Kind.Q8_0, Kind.Q4_1])
@pytest.mark.parametrize("span", [(0, 1), (1, 3), (HEAD_DIM - 1, HEAD_DIM + 1), (37, 128)])
def test_blocks_of_rows(write: Callable[..., str], kind: Kind, span: tuple[int, int]) -> None:
    name = "blk.0.attn_k.weight"
    with open_source(write(kinds={name: kind})) as source:
        whole = floats(source.read(checkpoint_name(name)))
        part = floats(source.read(checkpoint_name(name), *span))
        np.testing.assert_array_equal(part, whole[slice(*span)])


def test_permuted_biases(write: Callable[..., str]) -> None:
    stems = [stem for stem in gguf_files.BLOCK if "norm" not in stem]
    weights = gguf_files.tensors(stems)
    with open_source(write(weights=weights)) as source:
        assert source.config["attention_bias"]
        assert source.config["mlp_bias"]
        for name, values in weights.items():
            np.testing.assert_array_equal(floats(source.read(checkpoint_name(name))), values)


def test_config(write: Callable[..., str]) -> None:
    metadata = {"llama.rope.freq_base": 1e5, "tokenizer.ggml.eot_token_id": 2}
    with open_source(write(metadata=metadata)) as source:
        config = ModelConfig.from_dict(source.config, source.generation_config)
    assert (config.model_type, config.hidden_size, config.head_dim) == ("llama", 256, HEAD_DIM)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    assert config.rms_norm_eps == 1e-5  # not the float32 that is next to it
    assert config.rope_theta == 1e5
    assert config.tie_word_embeddings
    assert config.bos_token_id == 0
    assert config.eos_token_ids == (1, 2, 3)  # </s>, end of turn, and <|im_end|> by its text


def test_qwen2_config(write: Callable[..., str]) -> None:
    weights = gguf_files.tensors(("attn_q", "attn_k", "attn_v"), untied=True)
    with open_source(write(architecture="qwen2", weights=weights)) as source:
        config = ModelConfig.from_dict(source.config)
    assert config.model_type == "qwen2"
    assert config.qkv_bias
    assert not config.tie_word_embeddings


def test_sliding_window_makes_a_mistral(write: Callable[..., str]) -> None:
    with open_source(write(metadata={"llama.attention.sliding_window": 32})) as source:
        config = ModelConfig.from_dict(source.config)
    assert config.model_type == "mistral"
    assert config.sliding_windows == (32,)


def test_linear_scaling(write: Callable[..., str]) -> None:
    metadata = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    with open_source(write(metadata=metadata)) as source:
        scaling = ModelConfig.from_dict(source.config).rope_scaling
    assert scaling is not None
    assert (scaling.rope_type, scaling.factor) == ("linear", 4.0)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_recognised(write: Callable[..., str], factor: float) -> None:
    factors = rope_factors(factor)
    weights = gguf_files.tensors() | {"rope_freqs.weight": factors}
    with open_source(write(weights=weights, metadata={"llama.rope.freq_base": 500000.0})) as source:
        scaling = ModelConfig.from_dict(source.config).rope_scaling
    assert scaling is not None
    assert (scaling.rope_type, scaling.factor) == ("llama3", factor)
    assert scaling.original_max_position_embeddings == 8192


def rope_factors(factor: float) -> np.ndarray:
    """The loop of the Llama 3.1 model card, with the base of Llama 3."""
    result = []
    for pair in range(HEAD_DIM // 2):
        wavelength = 2 * np.pi * 500000.0 ** (2 * pair / HEAD_DIM)
        if wavelength < 8192 / 4:
            result.append(1.0)
        elif wavelength > 8192:
            result.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / 3
            result.append(1 / ((1 - smooth) / factor + smooth))
    np.testing.assert_allclose(result, llama3_factors(500000.0, HEAD_DIM, factor), rtol=1e-12)
    return np.array(result, np.float32)


REFUSED = {
    "architecture": ({"architecture": "gpt2"}, "general.architecture='gpt2'"),
    "experts": ({"metadata": {"llama.expert_count": 8}}, "llama.expert_count=8"),
    "split": ({"metadata": {"split.count": 3}}, "split.count=3, so this is one part"),
    "yarn": ({"metadata": {"llama.rope.scaling.type": "yarn"}}, "scaling.type='yarn'"),
    "partial rope": ({"metadata": {"llama.rope.dimension_count": 32}}, "dimension_count=32"),
    "values": ({"metadata": {"llama.attention.value_length": 32}}, "value_length=32"),
    "text": ({"metadata": {"llama.block_count": "two"}}, "llama.block_count='two'"),
    "truth": ({"metadata": {"llama.block_count": True}}, "llama.block_count=True"),
    "list": ({"metadata": {"llama.attention.head_count": [4, 4]}}, "head_count=.* whole number"),
    "no heads": ({"metadata": {"llama.attention.head_count": 0}}, "head_count=0"),
    "infinite": ({"metadata": {"llama.rope.freq_base": float("inf")}}, "freq_base=inf"),
    "no key": ({"metadata": {"llama.embedding_length": None}}, "lacks llama.embedding_length"),
    "layers": ({"metadata": {"llama.block_count": 2}}, "model.layers.1.*missing"),
    "shape": ({"metadata": {"llama.feed_forward_length": 100}}, r"shape \(512, 256\)"),
    "eos": ({"metadata": {"tokenizer.ggml.eos_token_id": 9999}}, "eos_token_id=9999"),
    "negative": ({"metadata": {"tokenizer.ggml.bos_token_id": -1}}, "bos_token_id=-1"),
    "scores": ({"metadata": {"tokenizer.ggml.tokens": [1, 2]}}, "tokens.* list of texts"),
    "types": ({"metadata": {"tokenizer.ggml.token_type": [1, 2]}}, "2 entries"),
    "float types": ({"metadata": {"tokenizer.ggml.token_type": [1.0] * VOCAB}}, "float"),
    "template": ({"metadata": {"tokenizer.chat_template": 5}}, "chat_template=5"),
    "alignment": ({"metadata": {"general.alignment": 48}}, "general.alignment is 48"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(write: Callable[..., str], name: str) -> None:
    options, sentence = REFUSED[name]
    with pytest.raises(SparityError, match=sentence):
        open_source(write(**options))


def test_missing_tensor(write: Callable[..., str]) -> None:
    weights = gguf_files.tensors()
    del weights["blk.0.ffn_up.weight"]
    with pytest.raises(SourceError, match=r"model\.layers\.0\.mlp\.up_proj\.weight.*missing"):
        open_source(write(weights=weights))


@pytest.mark.parametrize("name", ["blk.0.attn_q_norm.weight", "blk.0.attn_output.bias"])
def test_tensor_without_a_place(write: Callable[..., str], name: str) -> None:
    weights = gguf_files.tensors() | {name: np.ones(256, np.float32)}
    with pytest.raises(SourceError, match=r"attn_q_norm|o_proj\.bias"):
        open_source(write(weights=weights))


def test_unknown_rope_factors(write: Callable[..., str]) -> None:
    odd = np.linspace(1, 9, HEAD_DIM // 2, dtype=np.float32)
    with pytest.raises(SourceError, match=r"rope_freqs\.weight"):
        open_source(write(weights=gguf_files.tensors() | {"rope_freqs.weight": odd}))


def test_more_tokens_than_rows(write: Callable[..., str]) -> None:
    weights = gguf_files.tensors()
    weights["token_embd.weight"] = weights["token_embd.weight"][:-1]
    with pytest.raises(SourceError, match=f"{VOCAB} tokens.*{VOCAB - 1} rows"):
        open_source(write(weights=weights))


def test_more_rows_than_tokens(write: Callable[..., str]) -> None:
    weights = gguf_files.tensors()
    weights["token_embd.weight"] = np.vstack([weights["token_embd.weight"]] * 2)
    with open_source(write(weights=weights)) as source:
        assert source.config["vocab_size"] == 2 * VOCAB


def test_scales_that_are_not_finite(write: Callable[..., str]) -> None:
    name = "blk.0.ffn_up.weight"
    path = Path(write(kinds={name: Kind.Q8_0}))
    with open_source(str(path)) as source:
        offset = source._infos[name].offset  # type: ignore[attr-defined]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(np.float16(np.inf).tobytes())
    with open_source(str(path)) as source, pytest.raises(SourceError, match="not finite"):
        source.read(checkpoint_name(name))


def header(*parts: bytes, version: int = 3, tensors: int = 0, keys: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + b"".join(parts)


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def tensor(name: bytes = b"t", dims: tuple[int, ...] = (32,), kind: int = 0, at: int = 0) -> bytes:
    fixed = struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
    return string(name) + fixed + struct.pack("<IQ", kind, at)


ARRAY_HEAD = string(b"k") + struct.pack("<I", 9)
LIES = {
    "empty file": (b"", "cut short"),
    "other magic": (b"GGML" + bytes(60), "first four bytes"),
    "version": (header(version=1), "version is 1"),
    "big-endian": (header(version=3 << 24), "big-endian"),
    "tensor count": (header(tensors=1 << 62), "tensors"),
    "key count": (header(keys=1 << 62), "metadata keys"),
    "counts without content": (header(tensors=100, keys=100), "cut short"),
    "key length": (header(struct.pack("<Q", 1 << 63), keys=1), "cut short"),
    "key encoding": (header(string(b"\xff\xfe"), bytes(8), keys=1), "UTF-8"),
    "value type": (header(string(b"k"), struct.pack("<I", 77), bytes(8), keys=1), "type 77"),
    "endless list": (header(ARRAY_HEAD + struct.pack("<IQ", 0, 1 << 60), keys=1), "items"),
    "list too long": (header(ARRAY_HEAD + struct.pack("<IQ", 4, 1 << 20), keys=1), "cut short"),
    "list of lists": (header(ARRAY_HEAD + struct.pack("<IQ", 9, 1), bytes(32), keys=1), "type 9"),
    "key twice": (header(*([string(b"k") + struct.pack("<IB", 0, 1)] * 2), keys=2), "twice"),
    "tensor twice": (header(tensor(), tensor(), bytes(512), tensors=2), "twice"),
    "dimensions": (header(tensor(dims=(1,) * 99), bytes(99), tensors=1), "99 dimensions"),
    "no dimension": (header(tensor(dims=()), bytes(99), tensors=1), "0 dimensions"),
    "overflow": (header(tensor(dims=(1 << 32, 1 << 32)), bytes(99), tensors=1), "beyond the end"),
    "offset": (header(tensor(at=1 << 63), bytes(512), tensors=1), "beyond the end"),
    "alignment": (header(tensor(at=3), bytes(512), tensors=1), "starts at 3"),
    "number type": (header(tensor(kind=999), bytes(512), tensors=1), "number type 999"),
    "block": (header(tensor(kind=8, dims=(33,)), bytes(512), tensors=1), "no multiple of 32"),
}


@pytest.mark.parametrize("name", LIES)
def test_lying_header(tmp_path: Path, name: str) -> None:
    content, sentence = LIES[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=sentence):
        open_source(str(path))


@pytest.mark.parametrize("keep", [3, 20, 200, 2000, 8000, 100_000, 2_000_000])
def test_truncated(write: Callable[..., str], keep: int) -> None:
    path = Path(write())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SourceError, match="cut short"):
        open_source(str(path))


def test_unsupported_number_type(write: Callable[..., str]) -> None:
    path = Path(write())
    content = path.read_bytes()
    place = content.index(b"blk.0.ffn_up.weight") + len(b"blk.0.ffn_up.weight") + 4 + 16
    path.write_bytes(content[:place] + struct.pack("<I", Kind.I32) + content[place + 4 :])
    with pytest.raises(SourceError, match="number type I32"):
        open_source(str(path))


def test_no_permission_and_directories(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.gguf").write_bytes(header())
    with pytest.raises(SourceError, match="name the GGUF file itself"):
        open_source(str(folder))


def read_everything(source: Source) -> None:
    for name in ModelConfig.from_dict(source.config).tensor_shapes():
        source.read(name)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("healthy") / "model.gguf"
    return gguf_files.write(path, kinds=dict.fromkeys(MATRICES, Kind.Q4_0))


@settings(
    max_examples=300, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=4),
    keep=st.one_of(st.none(), st.floats(0, 1)),
)
def test_damage_never_escapes(
    healthy: Path, tmp_path: Path, flips: list[tuple[float, int]], keep: float | None
) -> None:
    content = bytearray(healthy.read_bytes())
    # Damage to the header is what matters; numbers that changed are still numbers.
    end = content.index(b"output_norm.weight") + 64
    for place, change in flips:
        content[int(place * end)] ^= change
    if keep is not None:
        del content[int(keep * len(content)) :]
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    with contextlib.suppress(SparityError), open_source(str(path)) as source:
        read_everything(source)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
@pytest.mark.parametrize("name", ["pipe", "pipe.gguf"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(SourceError, match="neither a folder nor a GGUF file"):
        open_source(str(tmp_path / name))
