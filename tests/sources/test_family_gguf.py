"""GGUF files of every family: the logits that transformers computes from the same checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf_files
import numpy as np
import pytest
import tiny
from goldens import assert_golden

from converters.sources import open_source
from sparity_edge import Generator, SourceError

# Keys of config.json by those below the architecture's name; numbers of which all families have.
KEYS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
STEMS = {module: stem for stem, (module, _) in gguf_files.BLOCK.items()}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
GRANITE = {
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier",
    "logit_scale": "logits_scaling",
}
WINDOW = {"attention.sliding_window": "sliding_window"}
YARN = {
    "attention.temperature_scale": "llama_4_scaling_beta",
    "rope.scaling.type": "rope_type",
    "rope.scaling.factor": "factor",
    "rope.scaling.original_context_length": "original_max_position_embeddings",
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
    "rope.scaling.yarn_log_multiplier": "mscale_all_dim",
}
FUSED = {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}
AFTER = {
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "post_attention_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}

# Case, general.architecture, and the stems of modules that a Llama has not.
FILES: list[tuple[str, str, dict[str, str]]] = [
    ("granite_constants", "granite", {}),
    ("ministral3_queries", "mistral3", {}),
    ("phi3_partial", "phi3", FUSED),
    ("phi3_longrope", "phi3", FUSED),
    ("qwen3_plain", "qwen3", NORMS),
    ("smollm3_every_fourth", "smollm3", {}),
    ("olmo2_plain", "olmo2", AFTER),
]


def metadata(architecture: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What llama.cpp's converter writes about any decoder."""
    head_dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    known = KEYS | GRANITE | (WINDOW if architecture == "phi3" else {})
    keys = {key: config[name] for key, name in known.items() if name in config}
    rotated = round(config.get("partial_rotary_factor", 1) * head_dim)
    keys |= {"rope.freq_base": theta, "rope.dimension_count": rotated}
    keys |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
    original = config.get("original_max_position_embeddings")
    if original is not None:
        usual = math.sqrt(1 + math.log(config["max_position_embeddings"] / original, original))
        keys |= {"rope.scaling.original_context_length": original}
        keys |= {"rope.scaling.attn_factor": usual}
    if architecture == "mistral3":
        keys |= {key: config["rope_parameters"][name] for key, name in YARN.items()}
    return {f"{architecture}.{key}": value for key, value in keys.items()}


def gguf_name(name: str, stems: Mapping[str, str]) -> str:
    """`model.layers.0.self_attn.q_proj.weight` -> `blk.0.attn_q.weight`."""
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    layer, _, inside = module.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{stems[inside]}.{kind}"


def logits_of(path: Path, name: str) -> np.ndarray:
    with Generator.load(str(path), dtype="f32", threads=2) as generator:
        model = generator.loaded.model
        return np.concatenate([np.array(part) for part in model.read_all_logits(tiny.ids_of(name))])


def write(
    path: Path,
    name: str,
    architecture: str,
    stems: Mapping[str, str],
    more: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A case as a GGUF file in F32, with more metadata, or other values in its config.json."""
    case = tiny.CASES[name]
    tensors = {
        gguf_name(tensor, {**STEMS, **stems}): values.astype(np.float32)
        for tensor, values in tiny.make_tensors(case).items()
    }
    config = {**tiny.config_of(case), **changes}
    for length in ("long", "short") if config.get("rope_scaling") else ():
        factors = config["rope_scaling"][f"{length}_factor"]
        tensors[f"rope_factors_{length}.weight"] = np.array(factors, np.float32)
    keys = metadata(architecture, config)
    keys |= more or {}
    return gguf_files.write(path, architecture=architecture, weights=tensors, metadata=keys)


@pytest.mark.parametrize(("name", "architecture", "stems"), FILES, ids=lambda each: str(each))
def test_logits_are_those_of_the_checkpoint(
    name: str, architecture: str, stems: Mapping[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path / "model.gguf", name, architecture, stems)
    assert_golden(name, logits_of(path, name))


def olmo3(path: Path, **windows: Any) -> str:
    """A GGUF file of OLMo 3 without scaled rope, its keys of windows as given."""
    name, architecture, stems = FILES[-1]
    keys = {f"{architecture}.attention.{key}": value for key, value in windows.items()}
    return str(write(path / "olmo3.gguf", name, architecture, stems, keys))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [(None, (6, 6)), ([True, False], (6, None)), (2, (6, None)), (1, (None, None)), (0, (6, 6))],
)
def test_windows_of_olmo3(pattern: Any, expected: tuple[int | None, ...], tmp_path: Path) -> None:
    windows = {"sliding_window": 6, "sliding_window_pattern": pattern}
    with open_source(olmo3(tmp_path, **windows)) as source:
        assert source.config.model_type == "olmo3"
        assert source.config.sliding_windows == expected


def test_windows_of_another_number_of_layers(tmp_path: Path) -> None:
    pattern = [True, False, True]
    with pytest.raises(SourceError, match=r"window_pattern is of 3 layers, and the model has 2"):
        open_source(olmo3(tmp_path, sliding_window=6, sliding_window_pattern=pattern))


def test_olmo2_has_no_window(tmp_path: Path) -> None:
    with open_source(olmo3(tmp_path)) as source:
        assert source.config.model_type == "olmo2"
