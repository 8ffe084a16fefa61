"""The smallest config.json of a Llama with changes, and what every refusal of one has to say."""

from __future__ import annotations

from typing import Any

import pytest
import tiny

from sparity_edge.config.model_config import ModelConfig
from sparity_edge.errors import ConfigError
from sparity_edge.model.families import read_config

PLAIN = {key: value for key, value in tiny.BASE.items() if key != "rope_parameters"}


def config_with(**changes: Any) -> ModelConfig:
    return read_config({**PLAIN, **changes})


def assert_refused(changes: dict[str, Any], words: list[str]) -> None:
    """One short sentence about config.json, with all of `words` in it."""
    with pytest.raises(ConfigError) as caught:
        config_with(**changes)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert message.startswith("config.json")
    assert message.endswith(".")
    assert len(message) < 300
