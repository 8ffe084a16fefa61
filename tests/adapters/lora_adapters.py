"""LoRA adapters for two tiny models, as peft writes them, with random weights.

`build(folder, name, model)` writes the adapter `CASES[name]`: adapter_config.json and
adapter_model.safetensors. The models are a checkpoint in floats, a GGUF file in many number
types, and a checkpoint of Phi-3. Knows nothing of sparity_edge; golden/make_lora_goldens.py gives
the same folders to peft.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf_files
import numpy as np
import tiny
from gguf import GGMLQuantizationType as Kind

CHECKPOINT = "llama_gqa"
KINDS = {
    "attn_q": Kind.Q8_0, "attn_k": Kind.Q4_0, "attn_v": Kind.Q5_1, "attn_output": Kind.Q4_1,
    "ffn_gate": Kind.Q4_K, "ffn_up": Kind.Q6_K, "ffn_down": Kind.Q5_0,
}  # fmt: skip
MODELS = ("floats", "quantised", "fused")
FUSED = "phi3_partial"  # a checkpoint that stores linears as one, and turns a part of each head
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def pairs() -> list[tuple[str, str]]:
    """The models of `MODELS`, each with what of `TOGETHER` goes with it."""
    return [
        (kind, name)
        for kind in MODELS
        for name in TOGETHER
        if (kind == "fused") == (name == "fused")
    ]


@dataclass(frozen=True)
class AdapterCase:
    """One adapter: which linears it has, what its configuration says, and how it is stored."""

    linears: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    ranks: Mapping[str, int] = field(default_factory=dict)  # by module, where not r
    storage: str = "F32"
    seed: int = 0


CASES = {
    "attention": AdapterCase(("q_proj", "v_proj"), {"r": 4, "lora_alpha": 6}),
    "all": AdapterCase(
        LINEARS,
        {
            "r": 3,
            "use_rslora": True,
            "rank_pattern": {"up_proj": 5, r"model\.layers\.1\.self_attn\.(q|k)_proj": 1},
            "alpha_pattern": {"layers.0.mlp.down_proj": 2.5},
        },
        {"layers.0.mlp.up_proj": 5, "layers.1.mlp.up_proj": 5,
         "layers.1.self_attn.q_proj": 1, "layers.1.self_attn.k_proj": 1},
        storage="BF16", seed=1,
    ),
    "wide": AdapterCase(
        ("o_proj", "gate_proj"),
        {"r": 17, "fan_in_fan_out": True}, storage="F16", seed=2,
    ),
    "fused": AdapterCase(
        ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"), {"r": 6, "lora_alpha": 9}, seed=3
    ),
}  # fmt: skip
# Adapters that stand together, each with the factor on what it adds.
TOGETHER = {
    "attention": (("attention", 1.0),),
    "all": (("all", 1.0),),
    "three": (("all", 0.5), ("attention", -1.5), ("wide", 1.0)),
    "fused": (("fused", 1.0),),
}


def model(folder: Path, kind: str) -> Path:
    """Write one of `MODELS`: a checkpoint folder, or a GGUF file in `folder`."""
    if kind != "quantised":
        return tiny.build(folder, FUSED if kind == "fused" else CHECKPOINT)
    folder.mkdir()
    kinds = {f"blk.0.{name}.weight": each for name, each in KINDS.items()}
    kinds["token_embd.weight"] = Kind.Q8_0
    return gguf_files.write(folder / "model.gguf", kinds=kinds)


def build(folder: Path, name: str, kind: str, **changes: Any) -> Path:
    """Write an adapter into `folder`.

    Args:
        folder: is made if need be.
        name: of `CASES`.
        kind: of `MODELS`, which one it is for.
        changes: to the configuration.
    """
    case = CASES[name]
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "somewhere",
        "r": 8, "lora_alpha": 8, "bias": "none", "use_dora": False, "modules_to_save": None,
        "target_modules": list(case.linears), **case.settings, **changes,
    }  # fmt: skip
    tiny.write_json(folder / "adapter_config.json", settings)
    tiny.write_safetensors(folder / "adapter_model.safetensors", tensors(name, kind))
    return folder


def tensors(name: str, kind: str) -> dict[str, np.ndarray]:
    """The weights of an adapter by their names in its file."""
    case, random = CASES[name], np.random.RandomState(CASES[name].seed)
    found = {}
    for module, (outputs, inputs) in _modules(kind).items():
        if module.rpartition(".")[2] not in case.linears:
            continue
        rank = case.ranks.get(module, case.settings["r"])
        pair = {"lora_A": (rank, inputs), "lora_B": (outputs, rank)}
        for half, shape in pair.items():
            values = (random.standard_normal(shape) / np.sqrt(shape[1])).astype(np.float32)
            stored = values.astype(tiny.STORAGE[case.storage])
            found[f"base_model.model.model.{module}.{half}.weight"] = stored
    return found


def _modules(kind: str) -> dict[str, tuple[int, int]]:
    """The linears of a model, "layers.0.self_attn.q_proj", and their shapes."""
    shapes: Mapping[str, tuple[int, ...]] = tiny.shapes(
        tiny.config_of(tiny.CASES[FUSED if kind == "fused" else CHECKPOINT])
    )
    if kind == "quantised":
        weights = gguf_files.tensors()
        shapes = {gguf_files.checkpoint_name(name): each.shape for name, each in weights.items()}
    return {
        name.removeprefix("model.").removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in shapes.items()
        if name.endswith("_proj.weight")
    }
