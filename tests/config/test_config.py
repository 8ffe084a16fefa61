"""config.json: both styles, what a missing key means, and every refusal."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st
from plain_config import PLAIN, assert_refused, config_with
from tiny_cases import LLAMA3, MISTRAL, QWEN2
from tiny_families import GRANITE, GRANITE4, OLMO3, PHI3, QWEN3, SMOLLM3

from sparity_edge.config.activation import Activation
from sparity_edge.config.model_config import LAYER_LINEARS
from sparity_edge.errors import ConfigError
from sparity_edge.model.families import read_config

BAMBOO = {"architectures": ["BambooForCausalLM"], "model_type": "bamboo"}
MINICPM = {"architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm"}


def without(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in PLAIN.items() if key not in keys}


@pytest.mark.parametrize("name", tiny.CASES)
def test_tensor_shapes_are_those_of_the_checkpoint(name: str) -> None:
    config = tiny.config_of(tiny.CASES[name])
    shapes = read_config(config, dict(tiny.CASES[name].generation)).tensor_shapes()
    expected = tiny.make_tensors(tiny.CASES[name])
    assert tiny.fused(shapes, config["model_type"]) == {
        key: tensor.shape for key, tensor in expected.items() if key not in tiny.CASES[name].extra
    }


def test_has_bias_and_linear_shape_cover_every_linear() -> None:
    config = config_with(attention_bias=True, num_key_value_heads=2, head_dim=24)
    assert [config.has_bias(name) for name in LAYER_LINEARS] == [True] * 4 + [False] * 3
    assert [config.linear_shape(name) for name in LAYER_LINEARS] == [
        (96, 64), (48, 64), (48, 64), (64, 96), (128, 64), (128, 64), (64, 128),
    ]  # fmt: skip


def test_missing_keys_mean_what_transformers_takes_them_to_mean() -> None:
    few = without(
        "architectures", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings",
        "max_position_embeddings", "hidden_act", "bos_token_id", "eos_token_id",
    )  # fmt: skip
    llama = read_config(few)
    mistral = read_config({**few, "model_type": "mistral", "num_attention_heads": 8})
    qwen2 = read_config(
        {**few, "model_type": "qwen2", "num_attention_heads": 32, "use_sliding_window": True}
    )
    assert (llama.num_key_value_heads, mistral.num_key_value_heads) == (4, 8)
    assert qwen2.num_key_value_heads == 32
    assert (llama.rms_norm_eps, llama.tie_word_embeddings) == (1e-6, False)
    assert llama.max_position_embeddings == 2048
    assert mistral.max_position_embeddings == 131072
    assert qwen2.max_position_embeddings == 32768
    assert mistral.sliding_windows == (4096, 4096)
    assert llama.sliding_windows == qwen2.sliding_windows == (None, None)
    assert (qwen2.qkv_bias, qwen2.o_bias, qwen2.mlp_bias) == (True, False, False)
    assert (llama.bos_token_id, llama.eos_token_ids) == (None, ())
    qwen3 = read_config({**few, "model_type": "qwen3", "num_attention_heads": 32})
    assert (qwen3.head_dim, qwen3.num_key_value_heads) == (128, 32)
    assert (qwen3.max_position_embeddings, qwen3.rope_theta) == (32768, 10000)
    assert (qwen3.qkv_bias, qwen3.o_bias, qwen3.mlp_bias) == (False, False, False)
    assert qwen3.sliding_windows == (None, None)


def test_null_number_of_key_value_heads_means_one_for_each_head() -> None:
    config = {**PLAIN, **MISTRAL, "num_key_value_heads": None}
    assert read_config(config).num_key_value_heads == 4


def test_sliding_windows_layer_by_layer() -> None:
    qwen2 = {**QWEN2, "sliding_window": 5, "max_window_layers": 1}
    kinds = ["sliding_attention", "full_attention"]
    assert config_with(sliding_window=5).sliding_windows == (None, None)
    assert config_with(**MISTRAL, sliding_window=5).sliding_windows == (5, 5)
    assert config_with(**MISTRAL, sliding_window=None).sliding_windows == (None, None)
    assert config_with(**qwen2).sliding_windows == (None, None)
    assert config_with(**qwen2, use_sliding_window=True).sliding_windows == (None, 5)
    listed = config_with(**qwen2, use_sliding_window=True, layer_types=kinds)
    assert listed.sliding_windows == (5, None)


def test_activations_and_the_constants_of_minicpm() -> None:
    assert config_with().activation == Activation("silu")
    assert config_with(hidden_act="relu").activation == Activation("relu")
    fatrelu = config_with(hidden_act="fatrelu", hidden_act_param=0.01).activation
    assert fatrelu == Activation("fatrelu", 0.01)
    assert [fatrelu.zeroes, str(fatrelu)] == [True, "FATReLU(0.01)"]
    drelu = config_with(**BAMBOO, hidden_act="relu").activation
    assert [drelu.up, str(drelu)] == [True, "dReLU"]
    assert config_with(**MINICPM).scales == pytest.approx((2**0.5, 2, 1 / 64, None))
    scaled = config_with(**MINICPM, scale_emb=12, scale_depth=1.4, dim_model_base=32)
    assert scaled.scales == pytest.approx((12 * 2**0.5 / 1.4, 2 / 1.4**2, 0.5, None))
    assert scaled.rms_norm_eps == pytest.approx(2e-5 / 1.4**2)
    assert config_with(scale_emb=12).scales == (1, 1, 1, None)


def test_generation_config_wins_for_token_ids() -> None:
    config = read_config(PLAIN, {"eos_token_id": [7, 8], "bos_token_id": None})
    assert (config.bos_token_id, config.eos_token_ids) == (1, (7, 8))
    assert read_config(PLAIN, {}).eos_token_ids == (2,)


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"architectures": ["GPT2LMHeadModel"]}, ["architectures='GPT2LMHeadModel'"]),
    ({"architectures": [["LlamaForCausalLM"]]}, ["architectures=", "LlamaForCausalLM"]),
    ({"architectures": None, "model_type": "gpt2"}, ["model_type='gpt2'"]),
    ({"model_type": "mistral"}, ["model_type='mistral'", "architectures='LlamaForCausalLM'"]),
    ({"hidden_act": "gelu"}, ["hidden_act='gelu'", "silu, relu, fatrelu"]),
    ({"hidden_act": ["relu"]}, ["hidden_act=['relu']"]),
    ({"hidden_act": "fatrelu"}, ["hidden_act_param=None"]),
    *(
        ({"hidden_act": "fatrelu", "hidden_act_param": value}, ["hidden_act_param=", "0 to 1e+06"])
        for value in (-0.01, float("nan"), float("inf"), 10**400, "0.01", True, [0.01])
    ),
    ({**BAMBOO, "hidden_act": "silu"}, ["hidden_act='silu'", "relu is"]),
    *(
        ({**MINICPM, key: value}, [f"{key}="])
        for key in ("scale_emb", "scale_depth", "dim_model_base")
        for value in (0, -1, 1e9, 1e-9, float("nan"), "12", False)
    ),
    ({**MINICPM, "attention_bias": True}, ["attention_bias=True", "'minicpm'"]),
    ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor=0.5", "'llama'"]),
    ({"quantization_config": {"quant_method": "gptq"}}, ["quantization_config", "'gptq'"]),
    ({**MISTRAL, "attention_bias": True}, ["attention_bias=True", "'mistral'"]),
    ({**QWEN2, "mlp_bias": True}, ["mlp_bias=True", "'qwen2'"]),
    ({**QWEN3, "mlp_bias": True}, ["mlp_bias=True", "'qwen3'"]),
    ({"rms_norm_eps": float("nan")}, ["rms_norm_eps=nan"]),
    ({"num_attention_heads": 0}, ["num_attention_heads=0"]),
    ({"num_key_value_heads": 3}, ["num_attention_heads=4", "num_key_value_heads=3"]),
    ({"hidden_size": 66}, ["hidden_size=66", "num_attention_heads=4"]),
    ({"hidden_size": 64.5}, ["hidden_size=64.5"]),
    ({"hidden_size": 1 << 40}, ["hidden_size=1099511627776"]),
    ({"head_dim": 15}, ["head_dim=15"]),
    ({"vocab_size": True}, ["vocab_size=True"]),
    ({"num_hidden_layers": 100000}, ["num_hidden_layers=100000"]),
    ({"max_position_embeddings": -5}, ["max_position_embeddings=-5"]),
    ({"tie_word_embeddings": 1}, ["tie_word_embeddings=1"]),
    ({"attention_bias": "no"}, ["attention_bias='no'"]),
    ({**MISTRAL, "sliding_window": 0}, ["sliding_window=0"]),
    ({**MISTRAL, "sliding_window": 5, "layer_types": ["full_attention"]}, ["layer_types="]),
    ({**MISTRAL, "sliding_window": 5, "layer_types": [{}, {}]}, ["layer_types="]),
    ({"eos_token_id": "2"}, ["eos_token_id='2'"]),
    ({"bos_token_id": [1.5]}, ["bos_token_id=1.5"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_a_refusal_names_key_and_value(changes: dict[str, Any], words: list[str]) -> None:
    assert_refused(changes, words)


@pytest.mark.parametrize(
    "key",
    ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"],
)
def test_a_missing_size_is_named(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} is missing"):
        read_config(without(key))


def test_a_bad_id_names_the_file_it_stands_in() -> None:
    with pytest.raises(ConfigError, match=r"^generation_config.json: eos_token_id=True "):
        read_config(PLAIN, {"eos_token_id": [2, True]})


def test_ids_without_a_row_are_none() -> None:
    config = read_config({**PLAIN, "bos_token_id": 50_000}, {"eos_token_id": [2.0, -1, 288, None]})
    assert (config.bos_token_id, config.eos_token_ids) == (None, (2,))
    assert read_config(PLAIN, {"eos_token_id": -1}).eos_token_ids == ()


def test_whole_numbers_may_be_floats() -> None:
    assert config_with(hidden_size=64.0, vocab_size=288.0).hidden_size == 64
    assert isinstance(config_with(num_hidden_layers=2.0).num_hidden_layers, int)


@pytest.mark.parametrize(
    "spelling",
    ["LlamaForCausalLM", ["LLaMAForCausalLM"], ["LlamaModel"], ["llama_for_causal_lm"], [], None],
)
def test_spellings_of_a_known_architecture(spelling: Any) -> None:
    assert config_with(model_type="llama", architectures=spelling).model_type == "llama"


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ConfigError) as caught:
        config_with(hidden_act="x" * 1_000_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("top", [[], "llama", None, 3])
def test_other_json_than_an_object_is_refused(top: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config.json is not a JSON object"):
        read_config(top)
    if top is not None:
        with pytest.raises(ConfigError, match=r"^generation_config.json is not a JSON object"):
            read_config(PLAIN, top)


SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 40) | st.integers() | st.floats() | st.text()
)  # fmt: skip
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
KEYS = st.sampled_from(
    [*PLAIN, "head_dim", "rope_theta", "rope_scaling", "rope_parameters", "sliding_window",
     "layer_types", "attention_bias", "mlp_bias", "partial_rotary_factor", "max_window_layers",
     "use_sliding_window", "quantization_config", "original_max_position_embeddings",
     "embedding_multiplier", "residual_multiplier", "attention_multiplier", "num_local_experts",
     "no_rope_layers", "no_rope_layer_interval"]
)  # fmt: skip
ROPE = st.dictionaries(
    st.sampled_from(["type", "rope_theta", "partial_rotary_factor", "short_factor", *LLAMA3]),
    JSON | st.sampled_from(["linear", "llama3", "yarn", "default"]),
)
FAMILY = st.sampled_from([{}, MISTRAL, QWEN2, QWEN3, SMOLLM3, OLMO3, GRANITE, GRANITE4, PHI3])


@given(FAMILY, st.dictionaries(KEYS, JSON | ROPE), st.none() | st.dictionaries(KEYS, JSON) | JSON)
def test_random_json_raises_nothing_but_config_errors(
    family: dict[str, Any], changes: dict[str, Any], generation: Any
) -> None:
    try:
        config = read_config({**PLAIN, **family, **changes}, generation)
    except ConfigError as error:
        assert str(error).endswith(".")  # noqa: PT017
    else:
        assert len(config.sliding_windows) == config.num_hidden_layers
        assert all(min(shape) > 0 for shape in config.tensor_shapes().values())
