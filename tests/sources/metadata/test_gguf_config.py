"""The configuration in the metadata of a GGUF file: what is read, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gguf_files
import pytest
from gguf_files import HEAD_DIM, VOCAB

from converters.sources import open_source
from sparity_edge.errors import SparityError


def test_config(write: Callable[..., str]) -> None:
    metadata = {"llama.rope.freq_base": 1e5, "tokenizer.ggml.eot_token_id": 2}
    with open_source(write(metadata=metadata)) as source:
        config = source.config
    assert (config.model_type, config.hidden_size, config.head_dim) == ("llama", 256, HEAD_DIM)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    assert config.rms_norm_eps == 1e-5  # not the float32 that is next to it
    assert config.rope_theta == 1e5
    assert config.tie_word_embeddings
    assert config.bos_token_id == 0
    assert config.eos_token_ids == (1, 2, 3)  # </s>, end of turn, and <|im_end|> by its text


def test_what_the_author_suggests_for_sampling(write: Callable[..., str]) -> None:
    metadata = {"general.sampling.temp": 0.6, "general.sampling.top_k": 20}
    unread = {"general.sampling.top_p": "high", "general.sampling.mirostat": 1}
    with open_source(write(metadata=metadata | unread)) as source:
        generation = source.generation_config
    assert (generation["temperature"], generation["top_k"]) == (0.6, 20)
    assert not {"top_p", "mirostat"} & generation.keys()


@pytest.mark.parametrize("count", [1, 3])
def test_one_number_a_layer(write: Callable[..., str], count: int) -> None:
    sizes = {"attention.head_count": 4, "attention.head_count_kv": 2, "feed_forward_length": 512}
    metadata = {f"llama.{key}": [value] * count for key, value in sizes.items()}
    with open_source(write(metadata=metadata)) as source:
        config = source.config
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    assert config.intermediate_size == 512


def test_qwen2_config(write: Callable[..., str]) -> None:
    weights = gguf_files.tensors(("attn_q", "attn_k", "attn_v"), untied=True)
    with open_source(write(architecture="qwen2", weights=weights)) as source:
        config = source.config
    assert config.model_type == "qwen2"
    assert config.qkv_bias
    assert not config.tie_word_embeddings


def test_windows_that_are_not_read_are_refused(write: Callable[..., str]) -> None:
    metadata = {"qwen3.attention.sliding_window": 32}
    with pytest.raises(SparityError, match=r"qwen3.attention.sliding_window=32 is not supported"):
        open_source(write(architecture="qwen3", metadata=metadata))


GRANITE = {"attention.scale": 0.0078125, "embedding_scale": 12.0, "residual_scale": 0.22}


def test_granite_config(write: Callable[..., str]) -> None:
    metadata = {f"granite.{key}": value for key, value in GRANITE.items()}
    metadata |= {"granite.logit_scale": 16.0, "granite.rope.scaling.finetuned": True}
    with open_source(write(architecture="granite", metadata=metadata)) as source:
        config = source.config
    assert config.model_type == "granite"
    assert config.scales == pytest.approx((12 / 0.22, 0.22**-2, 1 / 16, 0.0078125))
    assert config.layers_without_rope == ()
    metadata = {"granite.embedding_scale": 0.0, "granite.rope.scaling.finetuned": False}
    with open_source(write(architecture="granite", metadata=metadata)) as source:
        assert source.config.scales == (1, 1, 1, None)
        assert source.config.layers_without_rope == (0,)


def test_sliding_window_makes_a_mistral(write: Callable[..., str]) -> None:
    with open_source(write(metadata={"llama.attention.sliding_window": 32})) as source:
        config = source.config
    assert config.model_type == "mistral"
    assert config.sliding_windows == (32,)


@pytest.mark.parametrize(
    ("metadata", "count"),
    [
        ({"general.name": "Mistral 7B v0.1"}, 1),
        ({"general.name": "mistral-7b", "llama.attention.sliding_window": 4096}, 0),
        ({"general.name": "A llama"}, 0),
        ({"general.name": 3}, 0),
    ],
)
def test_a_window_that_no_key_tells(
    write: Callable[..., str], metadata: dict[str, Any], count: int
) -> None:
    with open_source(write(metadata=metadata)) as source:
        assert sum("tells no sliding window" in note for note in source.notes) == count


REFUSED = {
    "architecture": ({"architecture": "gpt2"}, "general.architecture='gpt2'"),
    "what it has": (
        {"architecture": "deepseek2", "metadata": {"deepseek2.attention.kv_lora_rank": 512}},
        "architecture='deepseek2' is not supported: it has latent attention; use one of ",
    ),
    "experts": (
        {"metadata": {"llama.expert_count": 8}},
        "llama.expert_count=8 is not supported: it has a mixture of experts; take",
    ),
    "split": ({"metadata": {"split.count": 3}}, "part 1 of 3 .*does not end in -00001-of-00003"),
    "partial rope": ({"metadata": {"llama.rope.dimension_count": 32}}, "dimension_count=32"),
    "values": ({"metadata": {"llama.attention.value_length": 32}}, "value_length=32"),
    "text": ({"metadata": {"llama.block_count": "two"}}, "llama.block_count='two'"),
    "truth": ({"metadata": {"llama.block_count": True}}, "llama.block_count=True"),
    "list": (
        {"metadata": {"llama.attention.head_count": [4, 2]}},
        r"head_count differs between layers \(from 2 to 4\)",
    ),
    "list of texts": ({"metadata": {"llama.attention.head_count": ["4"]}}, "head_count=.* whole"),
    "no heads": ({"metadata": {"llama.attention.head_count": 0}}, "head_count=0"),
    "infinite": ({"metadata": {"llama.rope.freq_base": float("inf")}}, "freq_base=inf"),
    "no key": ({"metadata": {"llama.embedding_length": None}}, "lacks llama.embedding_length"),
    "layers": ({"metadata": {"llama.block_count": 2}}, "model.layers.1.*missing"),
    "shape": ({"metadata": {"llama.feed_forward_length": 100}}, r"shape \(512, 256\)"),
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
