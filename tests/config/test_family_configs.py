"""What config.json says of one family alone: constants, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
from tiny_families import GRANITE

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
