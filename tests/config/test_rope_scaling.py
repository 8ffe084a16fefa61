"""Rotary embeddings in config.json: both styles, what a missing key means, and every refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_config import PLAIN, assert_refused, config_with
from rope_settings import LONGROPE, SETTINGS
from tiny_cases import LLAMA3

from sparity_edge.config.rope_scaling import Rope, RopeScaling, read_ropes
from sparity_edge.errors import ConfigError
from sparity_edge.model.rotary import RopeTables


def test_rope_theta_in_either_style() -> None:
    assert config_with(rope_theta=5e5).rope_theta == 5e5
    assert (
        config_with(rope_parameters={"rope_type": "default", "rope_theta": 5e5}).rope_theta == 5e5
    )
    assert config_with(rope_theta=3, rope_parameters={"rope_theta": 4}).rope_theta == 4
    assert config_with().rope_theta == 10000


def test_rope_scaling_in_either_style() -> None:
    old = config_with(rope_theta=5e5, rope_scaling=LLAMA3)
    assert old == config_with(rope_parameters={**LLAMA3, "rope_theta": 5e5})
    assert old.rope_scaling is not None
    assert old.rope_scaling.rope_type == "llama3"
    assert old.rope_scaling.factor == 4
    assert old.rope_scaling.original_max_position_embeddings == 64
    oldest = config_with(rope_scaling={"type": "linear", "factor": 2.5})
    assert oldest == config_with(rope_parameters={"rope_type": "linear", "factor": 2.5})
    assert oldest.rope_scaling is not None
    assert oldest.rope_scaling.factor == 2.5
    assert config_with(rope_scaling={"rope_type": "default"}).rope_scaling is None


def test_the_old_key_of_the_scaling_wins() -> None:
    both = config_with(
        rope_scaling={"type": "linear", "factor": 2.0},
        rope_parameters={"rope_type": "linear", "factor": 3.0},
    )
    assert both.rope_scaling is not None
    assert both.rope_scaling.factor == 2


def test_llama3_falls_back_to_the_context_length() -> None:
    block = {key: value for key, value in LLAMA3.items() if not key.startswith("original")}
    inner = config_with(rope_scaling=block).rope_scaling
    outer = config_with(rope_scaling=LLAMA3, original_max_position_embeddings=32).rope_scaling
    assert inner is not None
    assert inner.original_max_position_embeddings == PLAIN["max_position_embeddings"]
    assert outer is not None
    assert outer.original_max_position_embeddings == 32


def scaling_of(**entry: Any) -> RopeScaling:
    found = config_with(rope_scaling=entry).rope_scaling
    assert found is not None
    return found


def test_a_stretched_context_is_longer_than_config_json_says() -> None:
    """As model cards of Qwen2.5 tell users to write it; max_position_embeddings is 256."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    assert config_with(rope_scaling=yarn).model_context == 1024
    assert config_with(rope_scaling={**yarn, "factor": 0.5}).model_context == 256
    assert config_with(rope_scaling={"type": "dynamic", "factor": 2.5}).model_context == 640
    for name in ("linear", "llama3", "longrope"):
        assert config_with(rope_scaling=SETTINGS[name]).model_context == 256


def test_dynamic_leaves_the_original_length_aside() -> None:
    found = scaling_of(rope_type="dynamic", factor=2.0, original_max_position_embeddings=64)
    assert found.original_max_position_embeddings == 256


def test_su_is_longrope_and_equal_factors_do_not_depend_on_the_length() -> None:
    found = scaling_of(**{**LONGROPE, "rope_type": None, "type": "su"})
    assert (found.rope_type, found.factor, found.by_length) == ("longrope", 4.0, True)
    same = {**LONGROPE, "short_factor": LONGROPE["long_factor"]}
    assert not scaling_of(**same).by_length


def test_layers_with_a_window_have_a_rope_of_their_own_where_the_family_says_so() -> None:
    yarn = {**SETTINGS["yarn"], "rope_theta": 5e5}
    flat = {**PLAIN, "rope_parameters": yarn}
    rope, windowed = read_ropes(flat, 16, by_layer_type=True)
    assert rope.scaling is not None
    assert windowed == Rope(5e5, None, 16)
    nested = {"full_attention": yarn, "sliding_attention": {"rope_theta": 1e4}}
    assert read_ropes({**PLAIN, "rope_parameters": nested}, 16, by_layer_type=True) == (
        rope,
        Rope(1e4, None, 16),
    )
    nested["sliding_attention"] = SETTINGS["longrope"]
    with pytest.raises(ConfigError, match="sliding window by longrope"):
        read_ropes({**PLAIN, "rope_parameters": nested}, 16, by_layer_type=True)


REFUSED: list[tuple[dict[str, Any], list[str]]] = [
    ({"rope_parameters": {"partial_rotary_factor": 0}}, ["partial_rotary_factor=0"]),
    ({"rope_scaling": "linear"}, ["rope_scaling='linear'"]),
    ({"rope_parameters": [1]}, ["rope_parameters=[1]"]),
    ({"rope_parameters": {"full_attention": {}}}, ["rope_parameters", "'full_attention'"]),
    ({"rope_scaling": {"type": "linear"}}, ["factor is missing"]),
    ({"rope_scaling": {"type": "linear", "factor": 0}}, ["factor=0"]),
    ({"rope_theta": -1}, ["rope_theta=-1"]),
    ({"rope_theta": "10000"}, ["rope_theta='10000'"]),
    ({"rope_theta": 10**400}, ["rope_theta=1000"]),
    ({"rope_scaling": {"rope_type": "ntk", "factor": 2.0}}, ["rope_type='ntk'", "or longrope"]),
    ({"rope_scaling": {"rope_type": ["yarn"], "factor": 2.0}}, ["rope_type=['yarn']"]),
    ({"rope_scaling": {"type": "yarn", "factor": "4"}}, ["factor='4'"]),
    ({"rope_scaling": {"type": "yarn", "mscale": -1, "factor": 2}}, ["mscale=-1"]),
    ({"rope_scaling": {"type": "yarn", "beta_fast": [32], "factor": 2}}, ["beta_fast=[32]"]),
    ({"rope_scaling": {"type": "yarn", "truncate": 1, "factor": 2}}, ["truncate=1"]),
    ({"rope_scaling": {"type": "yarn", "factor": 2}, "rope_theta": 1}, ["rope_theta=1", "yarn"]),
    ({"rope_scaling": {"type": "dynamic"}}, ["factor is missing"]),
    ({"rope_scaling": {"type": "dynamic", "factor": 2}, "head_dim": 2}, ["head_dim=2"]),
    ({"rope_scaling": {**LONGROPE, "short_factor": [1.0]}}, ["short_factor of 1", "8 numbers"]),
    ({"rope_scaling": {**LONGROPE, "long_factor": None}}, ["long_factor=None", "8 numbers"]),
    ({"rope_scaling": {**LONGROPE, "long_factor": [1.0] * 7 + [0]}}, ["long_factor[7]=0"]),
    ({"rope_scaling": {**LONGROPE, "original_max_position_embeddings": 1}}, ["=1", "from 2"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), REFUSED)
def test_a_refusal_names_key_and_value(changes: dict[str, Any], words: list[str]) -> None:
    assert_refused(changes, words)


KEYS = sorted({key for setting in SETTINGS.values() for key in setting} | {"partial_rotary_factor"})
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([1.0] * 8)


@given(st.sampled_from(sorted(SETTINGS)), st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_any_values_are_read_or_refused_in_one_sentence(name: str, changes: dict[str, Any]) -> None:
    try:
        config = config_with(rope_parameters={**SETTINGS[name], **changes})
    except ConfigError as error:
        assert str(error).startswith("config.json")  # noqa: PT017 - most are read
        return
    table = RopeTables(config, 300)
    assert np.isfinite(table.of_queries(0, table.stretch(300))).all()
