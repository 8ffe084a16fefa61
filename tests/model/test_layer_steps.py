"""Optional steps of a layer that no family here has yet, against the same layers in plain NumPy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import plain_decoder
import pytest
import tiny
from model_families import registered
from stepwise import all_logits
from tiny_cases import Case

from converters.sources import open_source
from sparity_edge import ConfigError, Generator, SourceError, read_config

FAMILY = """
from sparity_edge.config.family import Family

FAMILY = Family(
    "steps",
    ("StepsForCausalLM",),
    qk_norm="heads",
    layers_without_rope=lambda config, layers: tuple(range(1, layers, 2)),
)
"""
SIZES = {"num_key_value_heads": 2, "hidden_size": 64, "head_dim": 16, "num_hidden_layers": 3}
CASE = Case({"architectures": ["StepsForCausalLM"], "model_type": "steps", **SIZES})
IDS = [1, *np.random.RandomState(5).randint(5, tiny.TOKENIZER_SIZE, 30).tolist()]


def weights() -> dict[str, np.ndarray]:
    """A checkpoint of the case, its norms of q and k far from 1."""
    tensors = tiny.make_tensors(CASE)
    random = np.random.RandomState(11)
    for layer in range(SIZES["num_hidden_layers"]):
        for name in ("q_norm", "k_norm"):
            values = random.uniform(0.5, 2, SIZES["head_dim"]).astype(np.float32)
            tensors[f"model.layers.{layer}.self_attn.{name}.weight"] = values
    return tensors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The checkpoint, while its family is registered."""
    path = tmp_path_factory.mktemp("steps")
    tiny.write_json(path / "config.json", tiny.config_of(CASE))
    tiny.write_tokenizer(path, CASE)
    tiny.write_safetensors(path / "model.safetensors", weights())
    with registered(tmp_path_factory.mktemp("family"), "steps", FAMILY):
        yield path


def normed(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return plain_decoder.normed(x, weight, 1e-5)


def expected_logits() -> np.ndarray:
    """(positions, vocab_size) of `IDS`, in float64."""
    w = {name: tensor.astype(np.float64) for name, tensor in weights().items()}
    x, size = w["model.embed_tokens.weight"][IDS], SIZES["head_dim"]
    hidden = np.triu(np.full((len(IDS), len(IDS)), -np.inf), 1)
    for layer in range(SIZES["num_hidden_layers"]):
        own = {name.split(".", 3)[3]: w[name] for name in w if f".layers.{layer}." in name}
        h = normed(x, own["input_layernorm.weight"])
        q, k, v = (
            (h @ own[f"self_attn.{name}_proj.weight"].T).reshape(len(IDS), -1, size)
            for name in "qkv"
        )
        q, k = (normed(each, own[f"self_attn.{n}_norm.weight"]) for each, n in ((q, "q"), (k, "k")))
        if layer % 2 == 0:
            q, k = plain_decoder.rotated(q), plain_decoder.rotated(k)
        k, v = (np.repeat(each, q.shape[1] // k.shape[1], axis=1) for each in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(size) + hidden
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", shares, v).reshape(len(IDS), -1)
        x = x + mixed @ own["self_attn.o_proj.weight"].T
        h = normed(x, own["post_attention_layernorm.weight"])
        gate, up = (h @ own[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ own["mlp.down_proj.weight"].T
    return normed(x, w["model.norm.weight"]) @ w["lm_head.weight"].T


@pytest.mark.parametrize("step", [len(IDS), 1], ids=["at once", "singly"])
def test_norms_of_q_and_k_and_layers_without_rope(folder: Path, step: int) -> None:
    expected = expected_logits()
    with Generator.load(str(folder), dtype="f32", threads=2) as generator:
        logits = all_logits(generator.loaded.model, IDS, step)
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_family_says_what_its_checkpoint_holds(folder: Path) -> None:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    parsed = read_config(config)
    assert parsed.tensor_shapes() == {name: each.shape for name, each in weights().items()}
    assert parsed.layers_without_rope == (1,)
    with pytest.raises(ConfigError, match=r"use one of bamboo, .*, smollm3, sparsellama, steps"):
        read_config({"model_type": "gpt2"})


def test_a_missing_norm_is_named(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = weights()
    del tensors["model.layers.1.self_attn.k_norm.weight"]
    tiny.write_safetensors(tmp_path / "model.safetensors", tensors)
    with (
        pytest.raises(SourceError, match=r"layers\.1\.self_attn\.k_norm\.weight"),
        open_source(str(tmp_path)),
    ):
        pass
