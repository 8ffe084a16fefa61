"""What config.json says of one family alone: constants, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
from tiny_families import GRANITE, GRANITE4, OLMO2, OLMO3, PHI3, SMOLLM3

from sparity_edge.config.model_config import ModelConfig
from sparity_edge.errors import ConfigError
from sparity_edge.model.families import read_config


def config_with(**changes: Any) -> ModelConfig:
    return read_config({**tiny.BASE, **changes})


def test_the_constants_of_granite() -> None:
    values = {"embedding_multiplier": 12, "residual_multiplier": 0.25, "logits_scaling": 8.0}
    config = config_with(**GRANITE, **values, attention_multiplier=0.0078125)
    assert config.scales == (48, 16, 0.125, 0.0078125)
    assert config.rms_norm_eps == 16e-5
    assert config_with(**GRANITE).scales == (1, 1, 1, 1)  # and not 1 / sqrt(head_dim)
    assert config_with(**GRANITE, attention_multiplier=None).scales.scores is None
    assert config_with(**GRANITE).layers_without_rope == ()
    assert config_with(**GRANITE, use_rope=False).layers_without_rope == (0, 1)


@pytest.mark.parametrize("value", [0, -1, "12"])
@pytest.mark.parametrize("key", ["embedding", "residual", "attention"])
def test_constants_that_are_none(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{key}_multiplier={value!r}"):
        config_with(**GRANITE, **{f"{key}_multiplier": value})


MOE, IMAGES = "a mixture of experts", "images or sound"
OTHERS: list[tuple[str, str, dict[str, Any], str]] = [
    ("phi3small", "Phi3SmallForCausalLM",
     {"hidden_act": "gegelu", "blocksparse_block_size": 64, "layer_norm_epsilon": 1e-5},
     "gates by GEGLU, block-sparse attention, LayerNorm and the activation 'gegelu'"),
    ("phi3_v", "Phi3VForCausalLM", {"img_processor": {"name": "clip"}}, IMAGES),
    ("phimoe", "PhiMoEForCausalLM", {"num_local_experts": 16}, MOE),
    ("gemma3", "Gemma3ForConditionalGeneration",
     {"vision_config": {"layers": 2}, "text_config": {"hidden_activation": "gelu_pytorch_tanh"}},
     f"norms and an embedding of Gemma's own, {IMAGES} and the activation 'gelu_pytorch_tanh'"),
    ("qwen3_moe", "Qwen3MoeForCausalLM", {"num_experts": 128, "kv_lora_rank": None}, MOE),
    ("llama4", "Llama4ForConditionalGeneration",
     {"vision_config": {"layers": 2},
      "text_config": {"num_local_experts": 16, "layer_types": ["chunked_attention"]}},
     f"{MOE}, {IMAGES} and layers of type 'chunked_attention'"),
    ("deepseek_v3", "DeepseekV3ForCausalLM", {"n_routed_experts": 256, "kv_lora_rank": 512},
     f"{MOE} and latent attention"),
    ("granite_swa", "GraniteSWAForCausalLM", {}, "sinks of attention"),
    ("falcon_h1", "FalconH1ForCausalLM", {"mamba_d_state": 256}, "state-space layers"),
]  # fmt: skip


@pytest.mark.parametrize(("model_type", "name", "keys", "reason"), OTHERS)
@pytest.mark.parametrize("named", [True, False])
def test_others_are_refused_by_name_with_what_is_missing(
    model_type: str, name: str, keys: dict[str, Any], reason: str, named: bool
) -> None:
    config = {**tiny.BASE, "model_type": model_type, "architectures": [name] if named else None}
    stated = f"architectures={name!r}" if named else f"model_type={model_type!r}"
    with pytest.raises(ConfigError) as caught:
        read_config({**config, **keys})
    message = str(caught.value)
    assert message.startswith(f"config.json: {stated} is not supported: it has {reason}; use one ")
    assert message.endswith(".")
    assert len(message) < 400


def test_dense_granite_4() -> None:
    config = config_with(**GRANITE4, intermediate_size=500)
    assert (config.intermediate_size, config.layers_without_rope) == (96, ())
    assert config_with(**{**GRANITE4, "position_embedding_type": None}).layers_without_rope == (
        0,
        1,
    )
    with pytest.raises(ConfigError, match=r"mamba layers \(as .* -h do\), which are not supported"):
        config_with(**{**GRANITE4, "layer_types": ["mamba", "attention"]})
    with pytest.raises(ConfigError, match="layer_types=None asks for mamba"):
        config_with(**{**GRANITE4, "layer_types": None})
    with pytest.raises(ConfigError, match="num_local_experts=64 asks for a mixture of experts"):
        config_with(**{**GRANITE4, "num_local_experts": 64})
    few = {key: value for key, value in GRANITE4.items() if key != "num_local_experts"}
    with pytest.raises(ConfigError, match="num_local_experts=8 asks"):
        config_with(**few)


def test_heads_that_are_rotated_in_part() -> None:
    phi3 = {**PHI3, "head_dim": 20}
    assert config_with(**phi3, partial_rotary_factor=0.7).rotary_dim == 14
    assert config_with(**phi3, partial_rotary_factor=0.71).rotary_dim == 14  # cut, not rounded
    assert config_with(**phi3, partial_rotary_factor=1.0).rotary_dim is None
    rope = {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.4}
    assert config_with(**phi3, rope_parameters=rope).rotary_dim == 8
    for factor, words in (
        (0.35, "rotates 7 of head_dim=20"),
        (0.01, "rotates 0"),
        (2, "rotates 40"),
    ):
        with pytest.raises(ConfigError, match=words):
            config_with(**phi3, partial_rotary_factor=factor)
    with pytest.raises(ConfigError, match="partial_rotary_factor='half' is not a number"):
        config_with(**phi3, partial_rotary_factor="half")


def test_phi3_as_transformers_takes_it() -> None:
    config = config_with(**PHI3)
    assert (config.sliding_windows, config.qkv_bias) == ((None, None), False)
    assert config_with(**PHI3, sliding_window=5).sliding_windows == (5, 5)
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    scaling = config_with(**PHI3, rope_scaling={"type": "yarn", **factors}).rope_scaling
    assert scaling is not None
    assert (scaling.rope_type, scaling.original_max_position_embeddings) == ("longrope", 4096)
    with pytest.raises(ConfigError, match=r"lm_head_bias=True is not supported .*'phi3'"):
        config_with(**PHI3, lm_head_bias=True)


def test_layers_of_smollm3_without_rope() -> None:
    def without(**changes: Any) -> tuple[int, ...]:
        return config_with(**SMOLLM3, num_hidden_layers=9, **changes).layers_without_rope

    assert without() == without(no_rope_layers=None) == (3, 7)
    assert without(no_rope_layer_interval=3) == (2, 5, 8)
    assert without(no_rope_layers=[0, 1, 1, 1, 1, 1, 1, 1, True, 0]) == (0,)


def test_windows_of_smollm3_are_in_layers_without_rope() -> None:
    def windows(**changes: Any) -> tuple[int | None, ...]:
        config = {"no_rope_layers": [0, 1], "sliding_window": 7, **changes}
        return config_with(**SMOLLM3, **config).sliding_windows

    assert windows() == windows(use_sliding_window=True, sliding_window=None) == (None, None)
    assert windows(use_sliding_window=True) == (7, None)
    kinds = ["full_attention", "sliding_attention"]
    assert windows(layer_types=kinds) == (None, 7)


@pytest.mark.parametrize("value", [[1], [1, 2], [1, None], [[], 1], "11", {"0": 1}, 4])
def test_no_list_of_layers_without_rope(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"no_rope_layers=.* each of 2 layers"):
        config_with(**SMOLLM3, no_rope_layers=value)


@pytest.mark.parametrize("value", [0, -1, 1.5, "4"])
def test_no_interval(value: Any) -> None:
    with pytest.raises(ConfigError, match="no_rope_layer_interval="):
        config_with(**SMOLLM3, no_rope_layer_interval=value)


def test_olmo_as_transformers_takes_it() -> None:
    olmo2 = config_with(**OLMO2, attention_bias=True)
    assert olmo2.norms == (None, "post_attention_layernorm", None, "post_feedforward_layernorm")
    assert olmo2.qk_norm_sizes == {"self_attn.q_norm": 64, "self_attn.k_norm": 64}
    assert (olmo2.qkv_bias, olmo2.o_bias, olmo2.sliding_windows) == (True, True, (None, None))
    few = {key: value for key, value in tiny.BASE.items() if key != "rope_parameters"}
    olmo3 = read_config({**few, **OLMO3, "num_hidden_layers": 9})
    assert olmo3.sliding_windows == (4096, 4096, 4096, None, 4096, 4096, 4096, None, 4096)
    assert olmo3.rope_theta == 500000
    assert config_with(**OLMO3, sliding_window=None).sliding_windows == (None, None)
    kinds = ["full_attention", "sliding_attention"]
    assert config_with(**OLMO3, sliding_window=3, layer_types=kinds).sliding_windows == (None, 3)


@pytest.mark.parametrize("family", [OLMO2, OLMO3])
def test_what_olmo_has_not(family: dict[str, Any]) -> None:
    name = family["model_type"]
    with pytest.raises(ConfigError, match=f"mlp_bias=True is not supported .*'{name}'"):
        config_with(**family, mlp_bias=True)


def test_layers_of_olmo3_are_stretched_without_a_window() -> None:
    yarn = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
    config = config_with(**OLMO3, rope_scaling=yarn, layer_types=["full_attention"] * 2)
    assert [config.rope(layer) == config.rope(0) for layer in range(2)] == [True, True]
    kinds = ["sliding_attention", "full_attention"]
    config = config_with(**OLMO3, rope_scaling=yarn, layer_types=kinds)
    windowed, full = (config.rope(layer) for layer in range(2))
    assert windowed is not None
    assert windowed.scaling is None
    assert full is not None
    assert full.scaling is not None
    assert full.scaling.factor == 8
