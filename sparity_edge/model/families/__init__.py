"""Families of models: one file each, with a `FAMILY` that says what it does unlike a Llama.

A file in this folder is all that a new family takes; nothing lists them. docs/adding-a-model.md
works one through.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from sparity_edge.config.family import Family
from sparity_edge.config.model_config import ModelConfig
from sparity_edge.config.nested import text_config
from sparity_edge.config.parsing import parse_config
from sparity_edge.config.unsupported import missing
from sparity_edge.config.values import show
from sparity_edge.errors import ConfigError


@functools.cache
def families() -> dict[str, Family]:
    """Every family by its `model_type`, in alphabetical order."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found = (importlib.import_module(f"{__name__}.{name}").FAMILY for name in names)
    return {family.model_type: family for family in found}


def family_of(config: Mapping[str, Any]) -> Family:
    """The family that the keys `architectures` and `model_type` name; the first one counts more.

    Args:
        config: the decoded config.json.

    Raises:
        ConfigError: there is no such family, or the two keys contradict each other.
    """
    known, config = families(), text_config(config)
    stated, architectures = config.get("model_type"), config.get("architectures")
    architectures = [architectures] if isinstance(architectures, str) else architectures
    if not isinstance(architectures, list) or not architectures:
        if not isinstance(stated, str) or stated not in known:
            raise _unknown("model_type", stated, config)
        return known[stated]
    name = architectures[0]
    family = next((each for each in known.values() if name in each.architectures), None)
    if family is None and isinstance(stated, str) and _spells(name, stated):
        family = known.get(stated)
    if family is None:
        raise _unknown("architectures", name, config)
    if isinstance(stated, str) and stated in known and stated != family.model_type:
        raise ConfigError(
            f"config.json: model_type={show(stated)} contradicts architectures={show(name)}; "
            "correct one of them."
        )
    return family


def _unknown(key: str, name: Any, config: Mapping[str, Any]) -> ConfigError:
    model_type = config.get("model_type")
    reason = missing(model_type if isinstance(model_type, str) else "", config)
    return ConfigError(
        f"config.json: {key}={show(name)} is not supported{reason}; "
        f"use one of {', '.join(families())}."
    )


def _spells(name: Any, model_type: str) -> bool:
    """Whether a class name is one of that type, as "LLaMAForCausalLM" and "LlamaModel" are."""
    return isinstance(name, str) and model_type.lower() in "".join(
        letter for letter in name.lower() if letter.isalnum()
    )


def read_config(
    config: Mapping[str, Any], generation_config: Mapping[str, Any] | None = None
) -> ModelConfig:
    """Read and check config.json by the family that it names.

    Args:
        config: the decoded config.json, in the style of transformers 4 or 5.
        generation_config: the decoded generation_config.json; its token ids take precedence.

    Raises:
        ConfigError: a key is missing, has the wrong type, or asks for what is not supported.

    Example:
        >>> sizes = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 96}
        >>> counts = {"num_hidden_layers": 2, "num_attention_heads": 4}
        >>> read_config({"model_type": "llama", **sizes, **counts}).head_dim
        16
    """
    if not isinstance(config, Mapping):
        raise ConfigError("config.json is not a JSON object; fetch the model again.")
    if generation_config is not None and not isinstance(generation_config, Mapping):
        raise ConfigError("generation_config.json is not a JSON object; fetch the model again.")
    config = text_config(config)
    return parse_config(config, generation_config, family_of(config))
