"""Adapters that strangers made or damaged, and what is not supported: one sentence each."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lora_adapters as adapters
import numpy as np
import pytest
import tiny

from converters.adapters.names import Adapter, adapters_of, own_name, with_adapters
from converters.adapters.patterns import Numbers
from converters.adapters.peft import LowRank, read_adapter
from sparity_edge.cli.main import main
from sparity_edge.config.lora import LORA_KEY
from sparity_edge.errors import ConfigError, OptionError, SourceError
from sparity_edge.model.families import read_config

CONFIG_JSON = tiny.config_of(tiny.CASES[adapters.CHECKPOINT])
CONFIG = read_config(CONFIG_JSON)
Tensors = dict[str, np.ndarray]
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def read(folder: Path) -> dict[str, LowRank]:
    return read_adapter(Adapter(folder, 1.0), CONFIG, {})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"use_dora": True}, r"use_dora=True \(DoRA\) is not supported"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias='all'"),
        ({"peft_type": "IA3"}, "peft_type='IA3'"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"r": 5}, "has rank 4, where adapter_config.json says 5"),
        ({"r": "4"}, "no number"),
        ({"lora_alpha": float("inf")}, "no number"),
        ({"lora_alpha": True}, "no number"),
        ({"target_modules": ["v_proj"]}, "none of target_modules"),
        ({"rank_pattern": [1]}, "no object of names"),
        ({"rank_pattern": {"(a+)+b": 4}}, "no pattern of names that is supported"),
        ({"alpha_pattern": {"q_proj(": 4}}, "no pattern of names that is supported"),
        ({"alpha_pattern": {"": 4}}, "no pattern of names that is supported"),
        ({"alpha_pattern": {"q_proj": None}}, "no number"),
    ],
)
def test_configurations(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    adapters.build(tmp_path, "attention", "floats", **changes)
    with pytest.raises(SourceError, match=told):
        read(tmp_path)


def renamed(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensors.pop(FIRST), **tensors}


def replaced(value: Any) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, FIRST: np.asarray(value, dtype=np.float32)}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (renamed("base_model.model.lm_head.lora_A.weight"), "lm_head.*not supported"),
        (renamed("base_model.model.model.embed_tokens.lora_embedding_A"), "embed_tokens.*not supp"),
        (renamed(FIRST.replace("lora_A.weight", "lora_magnitude_vector")), "magnitude.*not supp"),
        (renamed(FIRST.replace("layers.0", "layers.7")), "has no model.layers.7|lacks lora_A"),
        (renamed(FIRST.replace("q_proj", "w_proj")), "lacks lora_A or lora_B"),
        (lambda _: {}, "holds no LoRA weights"),
        (lambda tensors: {k: v for k, v in tensors.items() if k != FIRST}, "lacks lora_A"),
        (replaced(np.ones((4, 63))), r"lora_A \[4, 63\].*another model's"),
        (replaced(np.ones((3, 64))), r"lora_A \[3, 64\].*another model's"),
        (replaced(np.ones(4)), r"lora_A \[4\]"),
        (replaced(np.ones((0, 64))), r"lora_A \[0, 64\]"),
        (replaced(np.full((4, 64), np.nan)), "NaN or infinity"),
    ],
)
def test_weights(change: Callable[[Tensors], Tensors], told: str, tmp_path: Path) -> None:
    adapters.build(tmp_path, "attention", "floats")
    tensors = change(adapters.tensors("attention", "floats"))
    tiny.write_safetensors(tmp_path / "adapter_model.safetensors", tensors)
    with pytest.raises(SourceError, match=told):
        read(tmp_path)


def test_files(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no adapter_config.json"):
        read(tmp_path / "nowhere")
    adapters.build(tmp_path, "attention", "floats")
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(SourceError, match="not a valid safetensors file"):
        read(tmp_path)
    weights.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(SourceError, match="pickled, which is unsafe"):
        read(tmp_path)
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(SourceError, match=r"adapter_config\.json"):
        read(tmp_path)


def test_patterns_are_those_of_peft_and_end_soon() -> None:
    own = {"q_proj": 1, r"model\.layers\.[13]\..*k_proj": 2, "layers.0.mlp.up_proj": 3, ".*": 4}
    numbers = Numbers({"r": 9, "rank_pattern": own}, "r", "rank_pattern", "here")
    names = ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj")
    found = [[numbers.of(f"model.layers.{layer}.{name}") for name in names] for layer in (0, 1)]
    assert found == [[1, 4, 3, 4], [1, 2, 4, 4]]
    started = time.perf_counter()
    slow = Numbers({"p": dict.fromkeys([".*.*" + "[a-z]x" * 20], 1)}, "r", "p", "here")
    assert slow.of("model.layers.1023.self_attn." + "q" * 20) == 8
    assert time.perf_counter() - started < 1


def test_names(tmp_path: Path) -> None:
    folder = tmp_path / "a:2"
    folder.mkdir()
    name = with_adapters("org/model", ["./one", "two:0.5", str(folder), f"{folder}:3", "c:\\d"])
    assert own_name(name) == "org/model"
    assert adapters_of(name) == [
        (Path("one"), 1.0), (Path("two"), 0.5), (folder, 1.0), (folder, 3.0), (Path("c:\\d"), 1.0)
    ]  # fmt: skip
    assert with_adapters("m", tmp_path) == f"m --lora {tmp_path}"
    assert adapters_of("org/model") == []
    for wrong in ("", " ", "x:nan", "x:inf", ["a"] * 17, [3]):
        with pytest.raises((OptionError, TypeError)):
            with_adapters("m", wrong)


def test_the_command_says_it_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = adapters.model(tmp_path / "m", "floats")
    assert main(["generate", str(model), "-p", "x", "--lora", str(tmp_path / "no")]) == 1
    assert "is no LoRA adapter as peft writes it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value",
    [
        5,
        {},
        {"adapters": "0" * 64, "ranks": {}},
        {"adapters": "x", "ranks": {"0.self_attn.q_proj": 1}},
        {"adapters": "0" * 64, "ranks": {"2.self_attn.q_proj": 1}},
        {"adapters": "0" * 64, "ranks": {"0.self_attn.q": 1}},
        {"adapters": "0" * 64, "ranks": {"0.self_attn.q_proj": 0}},
        {"adapters": "0" * 64, "ranks": {"0.self_attn.q_proj": True}},
        {"adapters": "0" * 64, "ranks": {"0.self_attn.q_proj": 1 << 40}},
    ],
)
def test_packed_configurations(value: Any) -> None:
    with pytest.raises(ConfigError, match="SHA-256 of LoRA adapters"):
        read_config({**CONFIG_JSON, LORA_KEY: value})
